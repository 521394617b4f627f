//! Instructions that compute values of registers from values of registers, lane by lane.

use crate::exec::block::Block;
use crate::exec::warp::lanes;
use crate::ir::{BoolOp, Condition, Op, Operand, Reg};
use crate::scalar::{Compare, Lanes, ScalarFn, insert, lop3};
use crate::types::{extended, truncated};

/// The results in the lanes of a mask; others are 0.
fn each(mask: u32, f: impl Fn(usize) -> u64) -> Lanes {
    let mut out = [0; 32];
    lanes(mask).for_each(|lane| out[lane] = f(lane));
    out
}

/// Where a comparison writes its result.
#[derive(Clone, Copy, Debug)]
struct Truth {
    dst: Option<Reg>,
    inverse: Option<Reg>,
    combine: Option<(BoolOp, Condition)>,
    truth: u64,
}

impl Block<'_> {
    fn apply(&mut self, w: usize, mask: u32, f: ScalarFn, dst: Reg, src: [Operand; 3]) {
        let out = self.with(w, src, |operands| f.lanes(mask, operands));
        self.put(w, mask, dst, &out);
    }

    /// Executes one of these instructions; whether it is one.
    pub(super) fn compute(&mut self, w: usize, mask: u32, op: &Op) -> bool {
        match op {
            Op::Scalar { f, dst, src } => self.apply(w, mask, *f, *dst, *src),
            Op::Special { f, dst, src } => {
                self.apply(w, mask, *f, *dst, [*src, Operand::Imm(0), Operand::Imm(0)]);
            }
            Op::Convert {
                how,
                dst,
                filled,
                src,
            } => {
                let out = self.with(w, *src, |[a, b]| {
                    each(mask, |lane| {
                        extended(how.to, how.of(a[lane], b[lane]), *filled)
                    })
                });
                self.put(w, mask, *dst, &out);
            }
            Op::Insert { dst, src, size } => {
                let out = self.with(w, *src, |[a, b, start, length]| {
                    each(mask, |lane| {
                        insert(a[lane], b[lane], start[lane], length[lane], *size)
                    })
                });
                self.put(w, mask, *dst, &out);
            }
            Op::Lop3 { dst, src, table } => {
                let out = self.with(w, *src, |[a, b, c]| {
                    each(mask, |lane| lop3(a[lane], b[lane], c[lane], *table))
                });
                self.put(w, mask, *dst, &out);
            }
            Op::Compare {
                test,
                dst,
                inverse,
                src,
                combine,
                truth,
            } => {
                let (dst, inverse, combine, truth) = (*dst, *inverse, *combine, *truth);
                let to = Truth {
                    dst,
                    inverse,
                    combine,
                    truth,
                };
                self.compare(w, mask, *test, *src, to);
            }
            Op::ComparePacked {
                test,
                dst,
                src,
                truth,
            } => {
                let [low, high] = self.with(w, *src, |[a, b]| {
                    [
                        test.lanes(a, b),
                        test.lanes(&a.map(|x| x >> 16), &b.map(|x| x >> 16)),
                    ]
                });
                let half = |set: u32, lane: usize| if set >> lane & 1 == 1 { *truth } else { 0 };
                let out = each(mask, |lane| half(low, lane) | half(high, lane) << 16);
                self.put(w, mask, *dst, &out);
            }
            Op::Pack { dst, src, size } => {
                let part = size / src.len();
                let mut out = [0; 32];
                for (i, operand) in src.iter().enumerate() {
                    self.with(w, [*operand], |[values]| {
                        for (out, value) in out.iter_mut().zip(values) {
                            *out |= truncated(*value, part) << (8 * part * i);
                        }
                    });
                }
                self.put(w, mask, *dst, &out);
            }
            Op::Unpack { dst, src, size } => {
                let part = size / dst.len();
                let values = self.fetch(w, *src);
                for (i, reg) in dst.iter().enumerate() {
                    if let Some(reg) = reg {
                        let out = values.map(|value| truncated(value >> (8 * part * i), part));
                        self.put(w, mask, *reg, &out);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    fn compare(&mut self, w: usize, mask: u32, test: Compare, src: [Operand; 2], to: Truth) {
        let holds = self.with(w, src, |[a, b]| test.lanes(a, b));
        let (direct, opposite) = match to.combine {
            None => (holds, !holds),
            Some((op, condition)) => {
                let other = self.holds(w, condition);
                match op {
                    BoolOp::And => (holds & other, !holds & other),
                    BoolOp::Or => (holds | other, !holds | other),
                    BoolOp::Xor => (holds ^ other, !holds ^ other),
                }
            }
        };
        for (reg, set) in [(to.dst, direct), (to.inverse, opposite)] {
            if let Some(reg) = reg {
                let truth = to.truth;
                let value = |lane: usize| if set >> lane & 1 == 1 { truth } else { 0 };
                self.put(w, mask, reg, &std::array::from_fn(value));
            }
        }
    }
}
