//! Which lanes of a warp execute a collective instruction together, and which wait for others.

use crate::exec::block::Block;
use crate::exec::warp::{lanes, shown};
use crate::ir::{Op, Operand};
use crate::report::{Finding, Problem, Step, problem};

impl Block<'_> {
    /// The lanes that must execute an instruction together, if it is a collective one, and the lanes of `mask` that do so
    /// now: lanes with different masks of lanes execute it one group after another.
    pub(super) fn needed(&self, w: usize, mask: u32, op: &Op) -> Step<Option<(u32, u32)>> {
        Ok(match op {
            Op::WarpSync { mask: members }
            | Op::Shuffle { mask: members, .. }
            | Op::Vote { mask: members, .. }
            | Op::Match { mask: members, .. }
            | Op::Redux { mask: members, .. }
            | Op::Elect { mask: members, .. } => Some(self.members(w, mask, *members)?),
            Op::LoadMatrix { .. }
            | Op::StoreMatrix { .. }
            | Op::Mma { .. }
            | Op::Wgmma(_)
            | Op::WgmmaFence
            | Op::WgmmaCommit
            | Op::WgmmaWait { .. } => {
                self.needs_whole_warp(w)?;
                Some((u32::MAX, mask))
            }
            _ => None,
        })
    }

    /// Whether all of the lanes `needed` execute an instruction together. If not, the lanes that do wait for the others.
    ///
    /// `group` are the lanes at the instruction, `mask` those of them whose guard holds.
    pub(super) fn together(
        &mut self,
        w: usize,
        pc: usize,
        group: u32,
        mask: u32,
        needed: u32,
    ) -> bool {
        let warp = &mut self.warps[w];
        if needed & warp.live & !mask == 0 {
            return true;
        }
        warp.go(group & !mask, pc + 1);
        warp.blocked |= mask;
        false
    }

    /// The mask of lanes of the first lane, and the lanes that have the same one.
    fn members(&self, w: usize, mask: u32, operand: Operand) -> Step<(u32, u32)> {
        let values = self.fetch(w, operand);
        let members = values[mask.trailing_zeros() as usize] as u32;
        let same = lanes(mask).filter(|lane| values[*lane] as u32 == members);
        let same = same.fold(0, |same, lane| same | 1 << lane);
        if same & !members != 0 {
            let message = format!(
                "lanes {} execute it and are not in its mask {members:#010x}",
                shown(same & !members)
            );
            return problem(Finding::Divergence, message);
        }
        Ok((members, same))
    }

    /// Lanes wait for each other at different instructions.
    pub(super) fn diverged(&self, w: usize) -> Box<Problem> {
        let warp = &self.warps[w];
        let lane = warp.blocked.trailing_zeros() as usize;
        let at: Vec<String> = lanes(warp.blocked)
            .map(|lane| (warp.pc(lane), lane))
            .fold(Vec::<(usize, u32)>::new(), |mut groups, (pc, lane)| {
                match groups.iter_mut().find(|(other, _)| *other == pc) {
                    Some((_, mask)) => *mask |= 1 << lane,
                    None => groups.push((pc, 1 << lane)),
                }
                groups
            })
            .into_iter()
            .map(|(pc, mask)| {
                format!(
                    "lanes {} at PTX line {}",
                    shown(mask),
                    self.context.entry.code[pc].line
                )
            })
            .collect();
        let exited = match warp.live {
            u32::MAX => String::new(),
            live => format!("; lanes {} do not run", shown(!live)),
        };
        let message = format!(
            "lanes of a warp wait for others that do not come: {}{exited}",
            at.join(", ")
        );
        Box::new(Problem {
            finding: Finding::Divergence,
            lane: Some(lane),
            message,
        })
    }
}
