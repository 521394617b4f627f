//! Atomic operations: reads and writes that do not race with each other.

use crate::exec::block::Block;
use crate::exec::loads::{check_aligned, resolved};
use crate::exec::warp::lanes;
use crate::ir::{Address, AtomOp, Operand, Reg, Space};
use crate::memory::faulted;
use crate::report::{Finding, Step, at_lane, problem};
use crate::scalar::{Bf16, F16, Narrow, Rounding};
use crate::types::{Type, sign_extended, truncated};

/// The new value of an atomic operation.
fn updated(op: AtomOp, ty: Type, old: u64, [b, c]: [u64; 2]) -> u64 {
    let size = ty.size();
    let [b, c] = [truncated(b, size), truncated(c, size)];
    let signed = |x: u64| sign_extended(x, size);
    let less = if ty.is_signed() {
        signed(b) < signed(old)
    } else {
        b < old
    };
    let new = match op {
        AtomOp::Add => return sum(ty, old, b),
        AtomOp::Min => {
            if less {
                b
            } else {
                old
            }
        }
        AtomOp::Max => {
            if less {
                old
            } else {
                b
            }
        }
        AtomOp::Inc if old >= b => 0,
        AtomOp::Inc => old + 1,
        AtomOp::Dec if old == 0 || old > b => b,
        AtomOp::Dec => old - 1,
        AtomOp::And => old & b,
        AtomOp::Or => old | b,
        AtomOp::Xor => old ^ b,
        AtomOp::Exch => b,
        AtomOp::Cas if old == b => c,
        AtomOp::Cas => old,
    };
    truncated(new, size)
}

fn sum(ty: Type, a: u64, b: u64) -> u64 {
    fn halves<T: Narrow>(a: u64, b: u64) -> u64 {
        let wide = |x: u64| f64::from(T::widen(x as u16));
        T::narrow(wide(a) + wide(b), 0.0, Rounding::Nearest).into()
    }
    match ty {
        Type::F32 => u64::from((f32::from_bits(a as u32) + f32::from_bits(b as u32)).to_bits()),
        Type::F64 => (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        Type::F16 => halves::<F16>(a, b),
        Type::Bf16 => halves::<Bf16>(a, b),
        Type::F16x2 => halves::<F16>(a, b) | halves::<F16>(a >> 16, b >> 16) << 16,
        Type::Bf16x2 => halves::<Bf16>(a, b) | halves::<Bf16>(a >> 16, b >> 16) << 16,
        _ => truncated(a.wrapping_add(b), ty.size()),
    }
}

impl Block<'_> {
    /// The lanes of a warp take turns, from the first to the last.
    pub(super) fn atomic(
        &mut self,
        w: usize,
        mask: u32,
        (space, op, ty): (Space, AtomOp, Type),
        dst: Option<Reg>,
        at: Address,
        src: [Operand; 2],
    ) -> Step<()> {
        let addresses = self.addresses(w, at);
        let [b, c] = src.map(|operand| self.fetch(w, operand));
        for lane in lanes(mask) {
            let place = resolved(space, addresses[lane]);
            let old = at_lane(
                lane,
                self.atomic_lane(w * 32 + lane, place, op, ty, [b[lane], c[lane]]),
            )?;
            if let Some(dst) = dst {
                self.warps[w].registers[dst as usize][lane] = old;
            }
        }
        self.changes += 1;
        Ok(())
    }

    fn atomic_lane(
        &mut self,
        thread: usize,
        (space, address): (Space, u64),
        op: AtomOp,
        ty: Type,
        src: [u64; 2],
    ) -> Step<u64> {
        let size = ty.size();
        check_aligned(address, size, "atomic")?;
        let mut touch = self.by_thread(thread, address, size, true);
        touch.atomic = true;
        let mut bytes = [0; 8];
        match space {
            Space::Shared => {
                bytes[..size].copy_from_slice(self.shared.read(address, size)?);
                let old = u64::from_le_bytes(bytes);
                self.shared
                    .write(address, &updated(op, ty, old, src).to_le_bytes()[..size])?;
                self.touch_shared(&touch)?;
                Ok(old)
            }
            Space::Global => {
                faulted(self.memory.read(address, &mut bytes[..size]))?;
                let old = u64::from_le_bytes(bytes);
                faulted(
                    self.memory
                        .write(address, &updated(op, ty, old, src).to_le_bytes()[..size]),
                )?;
                self.touch_global(&touch)?;
                Ok(old)
            }
            _ => problem(
                Finding::Operand,
                format!("an atomic at {address:#x}, which is neither shared nor global memory"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        assert_eq!(
            updated(AtomOp::Min, Type::S32, 3, [u64::MAX, 0]),
            0xffff_ffff
        );
        assert_eq!(updated(AtomOp::Min, Type::U32, 3, [u64::MAX, 0]), 3);
        assert_eq!(updated(AtomOp::Max, Type::S32, 3, [u64::MAX, 0]), 3);
        assert_eq!(updated(AtomOp::Add, Type::U32, 0xffff_ffff, [1, 0]), 0);
        assert_eq!(updated(AtomOp::Inc, Type::U32, 7, [7, 0]), 0);
        assert_eq!(updated(AtomOp::Inc, Type::U32, 6, [7, 0]), 7);
        assert_eq!(updated(AtomOp::Dec, Type::U32, 0, [7, 0]), 7);
        assert_eq!(updated(AtomOp::Dec, Type::U32, 8, [7, 0]), 7);
        assert_eq!(updated(AtomOp::Cas, Type::B32, 5, [5, 9]), 9);
        assert_eq!(updated(AtomOp::Cas, Type::B32, 4, [5, 9]), 4);
    }

    #[test]
    fn floats() {
        let [one, two] = [1f32, 2.0].map(|x| u64::from(x.to_bits()));
        assert_eq!(
            updated(AtomOp::Add, Type::F32, one, [two, 0]),
            u64::from(3f32.to_bits())
        );
        assert_eq!(
            updated(AtomOp::Add, Type::Bf16x2, 0x3f80_4000, [0x3f80_3f80, 0]),
            0x4000_4040
        );
    }
}
