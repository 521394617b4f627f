//! The sizes of a call, checked against every view of its input.

use super::input::AttnInput;
use crate::{DType, DeviceKind, Error, Result, View, ViewMut, dispatch::one_device};

/// What errors call the kernel.
pub(super) const OP: &str = "attention";

/// A task's memory grows with the head dim alone; so it is bounded.
const MAX_HEAD_DIM: usize = 1 << 16;

/// Sizes, checked against every view of an input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dims {
    pub(super) b: usize,
    pub(super) lq: usize,
    pub(super) lk: usize,
    pub(super) h: usize,
    pub(super) h_kv: usize,
    pub(super) d: usize,
}

impl Dims {
    pub(super) fn of(input: &AttnInput<'_>) -> Result<Self> {
        let (q, k, v) = (&input.q, &input.k, &input.v);
        let &[b, lq, h, d] = q.shape() else {
            return Err(Error::shape(OP, "q [b, lq, h, d]", q));
        };
        let &[k_b, lk, h_kv, k_d] = k.shape() else {
            return Err(Error::shape(OP, "k [b, lk, h_kv, d]", k));
        };
        if d == 0 || d > MAX_HEAD_DIM {
            let want = format!("a head dim of 1 to {MAX_HEAD_DIM}");
            return Err(Error::shape(OP, want, q));
        }
        if k_b != b || k_d != d {
            return Err(Error::shape(OP, format!("k [{b}, lk, h_kv, {d}]"), k));
        }
        if h % h_kv.max(1) != 0 || (h_kv == 0) != (h == 0) {
            let want = format!("a number of kv heads that divides {h} heads");
            return Err(Error::shape(OP, want, h_kv));
        }
        if v.shape() != k.shape() {
            return Err(Error::shape(OP, format!("v {:?} as k", k.shape()), v));
        }
        for x in [k, v] {
            if x.dtype() != q.dtype() {
                return Err(Error::DType {
                    op: OP,
                    expected: format!("{} of q for k and v", q.dtype()),
                    got: x.dtype(),
                });
            }
        }
        if let Some(mask) = input.mask.key_mask {
            if mask.shape() != [b, lk] {
                return Err(Error::shape(OP, format!("a key mask [{b}, {lk}]"), mask));
            }
            if mask.dtype() != DType::U8 {
                return Err(Error::DType {
                    op: OP,
                    expected: "u8 key mask".into(),
                    got: mask.dtype(),
                });
            }
        }
        if let Some(bias) = input.mask.bias {
            bias.dtype().float(OP)?;
            let fits = bias.ndim() == 4
                && bias.dim(3) == lk
                && [b, h, lq]
                    .iter()
                    .zip(bias.shape())
                    .all(|(&n, &got)| got == n || got == 1);
            if !fits {
                let want = format!("a bias [1 or {b}, 1 or {h}, 1 or {lq}, {lk}]");
                return Err(Error::shape(OP, want, bias));
            }
        }
        Ok(Self {
            b,
            lq,
            lk,
            h,
            h_kv,
            d,
        })
    }

    /// Checks the outputs of a call with these sizes. Returns what all operands are on.
    pub(super) fn expect_outputs(
        &self,
        input: &AttnInput<'_>,
        out: &ViewMut<'_>,
        lse: &ViewMut<'_>,
    ) -> Result<DeviceKind> {
        let dtype = match out.dtype() {
            DType::F32 => DType::F32,
            _ => input.q.dtype(),
        };
        out.expect(OP, input.q.shape(), dtype)?;
        lse.expect(OP, &[self.b, self.h, self.lq], DType::F32)?;
        if out.strides()[3] != 1 {
            return Err(Error::shape(OP, "an output whose last stride is 1", out));
        }
        let views = [Some(input.q), Some(input.k), Some(input.v)];
        let masks = [input.mask.key_mask, input.mask.bias];
        let inputs = views.iter().chain(&masks).flatten().map(View::device);
        one_device(OP, inputs.chain([out.device(), lse.device()]))
    }
}
