//! Values of operands in all lanes of a warp.

use crate::exec::block::{Block, Context};
use crate::exec::warp::{Warp, lanes};
use crate::ir::{Address, Condition, LaneOrder, Operand, Reg, Special};
use crate::report::{Finding, Step, problem};
use crate::scalar::Lanes;

static ZEROS: Lanes = [0; 32];

/// The values of an operand that is no register.
fn value(context: &Context<'_>, id: [u32; 3], warp: &Warp, operand: Operand) -> Lanes {
    match operand {
        Operand::Reg(reg) => warp.registers[reg as usize],
        Operand::Imm(value) => [value; 32],
        Operand::Variable(index) => [context.variables[index as usize]; 32],
        Operand::Dynamic => [context.dynamic.0 as u64; 32],
        Operand::Special(special) => special_value(context, id, warp, special),
    }
}

fn special_value(context: &Context<'_>, id: [u32; 3], warp: &Warp, special: Special) -> Lanes {
    let of_lane = |f: &dyn Fn(u32) -> u32| std::array::from_fn(|lane| u64::from(f(lane as u32)));
    let (offset, size) = context.dynamic;
    match special {
        Special::Tid(dim) => warp.tid[dim].map(u64::from),
        Special::Ntid(dim) => [context.block[dim].into(); 32],
        Special::Ctaid(dim) => [id[dim].into(); 32],
        Special::Nctaid(dim) => [context.grid[dim].into(); 32],
        Special::LaneId => of_lane(&|lane| lane),
        Special::WarpId => [warp.number as u64; 32],
        Special::NwarpId => [context.threads().div_ceil(32) as u64; 32],
        Special::LaneMask(order) => of_lane(&|lane| {
            let bit = 1u32 << lane;
            match order {
                LaneOrder::Eq => bit,
                LaneOrder::Lt => bit - 1,
                LaneOrder::Le => bit | (bit - 1),
                LaneOrder::Gt => !(bit | (bit - 1)),
                LaneOrder::Ge => !(bit - 1),
            }
        }),
        Special::DynamicSharedSize => [size as u64; 32],
        Special::TotalSharedSize => [(offset + size) as u64; 32],
    }
}

/// The lanes whose value is odd.
pub(super) fn odd(values: &Lanes) -> u32 {
    let set = |mask, (lane, value): (usize, &u64)| mask | ((*value as u32 & 1) << lane);
    values.iter().enumerate().fold(0, set)
}

impl Block<'_> {
    /// The values of an operand in all lanes.
    #[inline]
    pub(super) fn fetch(&self, w: usize, operand: Operand) -> Lanes {
        value(self.context, self.id, &self.warps[w], operand)
    }

    /// Computes with the values of operands. Those of registers are not copied.
    #[inline]
    pub(super) fn with<const N: usize, R>(
        &mut self,
        w: usize,
        operands: [Operand; N],
        f: impl FnOnce([&Lanes; N]) -> R,
    ) -> R {
        let (warp, context, id) = (&self.warps[w], self.context, self.id);
        let mut spaces = self.scratch.iter_mut();
        f(operands.map(|operand| match operand {
            Operand::Reg(reg) => &warp.registers[reg as usize],
            Operand::Imm(0) => &ZEROS,
            other => match spaces.next() {
                Some(space) => {
                    *space = value(context, id, warp, other);
                    space
                }
                None => &ZEROS,
            },
        }))
    }

    /// The addresses of all lanes.
    pub(super) fn addresses(&self, w: usize, address: Address) -> Lanes {
        self.fetch(w, address.base)
            .map(|base| base.wrapping_add(address.offset as u64))
    }

    /// The lanes in which a condition holds.
    pub(super) fn holds(&self, w: usize, condition: Condition) -> u32 {
        let set = match condition.value {
            Operand::Reg(reg) => odd(&self.warps[w].registers[reg as usize]),
            other => odd(&self.fetch(w, other)),
        };
        if condition.negated { !set } else { set }
    }

    /// Writes a register in some lanes.
    #[inline]
    pub(super) fn put(&mut self, w: usize, mask: u32, reg: Reg, values: &Lanes) {
        let register = &mut self.warps[w].registers[reg as usize];
        if mask == u32::MAX {
            *register = *values;
            return;
        }
        for lane in lanes(mask) {
            register[lane] = values[lane];
        }
    }

    /// The value that an operand has in all lanes of a mask.
    pub(super) fn uniform(&self, w: usize, mask: u32, operand: Operand, what: &str) -> Step<u64> {
        let values = self.fetch(w, operand);
        let mut all = lanes(mask).map(|lane| values[lane]);
        let first = all.next().unwrap_or(0);
        if all.any(|value| value != first) {
            return problem(
                Finding::Operand,
                format!("{what} differs between the lanes of a warp"),
            );
        }
        Ok(first)
    }
}
