//! A product as a whole: its sizes, and whether its parts fit.

use crate::objects::{Description, Layout};
use crate::status::{INVALID_VALUE, NOT_SUPPORTED, Number, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Relu,
    Gelu,
}

/// Bits of an epilogue.
const DEFAULT: u32 = 1;
const RELU: u32 = 2;
const BIAS: u32 = 4;
const GELU: u32 = 32;

/// What a call computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem {
    pub(crate) description: Description,
    pub(crate) a: Layout,
    pub(crate) b: Layout,
    pub(crate) c: Layout,
    pub(crate) d: Layout,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
    pub(crate) activation: Activation,
    pub(crate) has_bias: bool,
    pub(crate) bias_number: Number,
}

/// Why a product is not possible.
pub(crate) type Refusal = (Status, String);

fn refused<T>(status: Status, text: impl Into<String>) -> Result<T, Refusal> {
    Err((status, text.into()))
}

impl Problem {
    /// A product with `alpha` 1 and `beta` 0.
    pub(crate) fn new(
        description: Description,
        [a, b, c, d]: [Layout; 4],
    ) -> Result<Self, Refusal> {
        let op = |layout: &Layout, transposed: bool| {
            let (rows, columns) = (layout.rows, layout.columns);
            if transposed {
                (columns, rows)
            } else {
                (rows, columns)
            }
        };
        let (m, k) = op(&a, description.transposed[0]);
        let (k_b, n) = op(&b, description.transposed[1]);
        if k != k_b {
            return refused(
                INVALID_VALUE,
                format!("op(a) is {m} × {k} and op(b) is {k_b} × {n}"),
            );
        }
        for (name, layout) in [("c", &c), ("d", &d)] {
            let (rows, columns) = (layout.rows, layout.columns);
            if (rows, columns) != (m, n) {
                return refused(
                    INVALID_VALUE,
                    format!("{name} is {rows} × {columns}; the product is {m} × {n}"),
                );
            }
        }
        for (name, layout) in [("a", &a), ("b", &b), ("c", &c), ("d", &d)] {
            if layout.leading < layout.rows {
                let text = format!(
                    "the columns of {name} have {} numbers, and the next begins {} behind",
                    layout.rows, layout.leading
                );
                return refused(INVALID_VALUE, text);
            }
            if layout.batch != d.batch {
                let text = format!(
                    "the batch of {name} is {}, that of d {}",
                    layout.batch, d.batch
                );
                return refused(INVALID_VALUE, text);
            }
        }
        let (x, y) = (a.number, d.number);
        if b.number != x || c.number != y || (x != y && y != Number::F32) {
            let text = format!("types {x:?}, {:?}, {:?}, {y:?}", b.number, c.number);
            return refused(NOT_SUPPORTED, text);
        }
        let epilogue = description.epilogue;
        let activation = match epilogue & !BIAS {
            0 | DEFAULT => Activation::None,
            RELU => Activation::Relu,
            GELU => Activation::Gelu,
            _ => return refused(NOT_SUPPORTED, format!("epilogue {epilogue}")),
        };
        let bias_number = description.bias_number.unwrap_or(y);
        if bias_number != y && bias_number != x {
            return refused(
                NOT_SUPPORTED,
                format!("a bias of {bias_number:?} for {y:?}"),
            );
        }
        Ok(Self {
            description,
            a,
            b,
            c,
            d,
            m,
            n,
            k,
            alpha: 1.0,
            beta: 0.0,
            activation,
            has_bias: epilogue & BIAS != 0,
            bias_number,
        })
    }

    /// A number that differs for problems which an algorithm of another one does not fit.
    pub(crate) fn fingerprint(&self) -> u64 {
        let layouts = [self.a, self.b, self.c, self.d].into_iter();
        let numbers =
            layouts.flat_map(|l| [l.number as usize, l.rows, l.columns, l.leading, l.batch]);
        let others = [
            self.description.epilogue as usize,
            usize::from(self.description.transposed[0]),
            usize::from(self.description.transposed[1]),
        ];
        numbers
            .chain(others)
            .fold(0xcbf2_9ce4_8422_2325, |hash, number| {
                (hash ^ number as u64).wrapping_mul(0x0000_0100_0000_01b3)
            })
    }
}
