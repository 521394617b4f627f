//! Instructions on single values: each is a function of up to three values of 64 bits.

mod bits;
mod compare;
mod convert;
mod float;
mod float64;
mod half;
mod integer;
mod modifiers;
mod rounding;

pub(crate) use bits::{insert, lop3};
pub(crate) use compare::{Compare, compare};
pub(crate) use convert::{Conversion, conversion};
pub(crate) use half::{Bf16, F16, Narrow};
pub(crate) use rounding::Rounding;

use std::fmt;

use modifiers::Modifiers;

/// The values of a register in all lanes of a warp.
pub(crate) type Lanes = [u64; 32];

/// The result of an instruction for its operands; an instruction with fewer operands ignores the rest.
pub(crate) type ScalarFn = &'static dyn Lanewise;

/// A function on the operands of one lane, compiled for a whole warp: one indirect call for 32 lanes.
pub(crate) trait Lanewise: Sync {
    /// The results in the lanes of a mask; others are 0.
    fn lanes(&self, mask: u32, operands: [&Lanes; 3]) -> Lanes;
}

impl<F: Fn(u64, u64, u64) -> u64 + Sync> Lanewise for F {
    fn lanes(&self, mask: u32, [a, b, c]: [&Lanes; 3]) -> Lanes {
        if mask == u32::MAX {
            return std::array::from_fn(|lane| self(a[lane], b[lane], c[lane]));
        }
        let mut out = [0; 32];
        for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
            out[lane] = self(a[lane], b[lane], c[lane]);
        }
        out
    }
}

impl fmt::Debug for dyn Lanewise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lanewise")
    }
}

/// A scalar instruction: its function and the number of its operands.
#[derive(Clone, Copy)]
pub(crate) struct Scalar {
    pub(crate) f: ScalarFn,
    pub(crate) operands: usize,
}

/// The scalar instruction that an opcode names, or `None`.
pub(crate) fn scalar(opcode: &[&str]) -> Option<Scalar> {
    let modifiers = Modifiers::of(opcode)?;
    let found = integer::lookup(&modifiers)
        .or_else(|| bits::lookup(&modifiers))
        .or_else(|| float::lookup(&modifiers))
        .or_else(|| float64::lookup(&modifiers))
        .or_else(|| half::lookup(&modifiers));
    found.map(|(f, operands)| Scalar { f, operands })
}

/// What a lookup gives: the function and the number of operands.
type Found = Option<(ScalarFn, usize)>;
