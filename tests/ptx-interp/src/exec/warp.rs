//! The state of a warp.

use std::collections::{HashSet, VecDeque};

use crate::ir::Reg;
use crate::scalar::Lanes;

/// The lanes of a mask, in order.
pub(super) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}

/// A list of lanes for messages: `0-3, 7`.
pub(super) fn shown(mask: u32) -> String {
    let mut parts = Vec::new();
    let mut start = None;
    for lane in 0..=32u32 {
        let set = lane < 32 && mask >> lane & 1 == 1;
        match (set, start) {
            (true, None) => start = Some(lane),
            (false, Some(first)) => {
                parts.push(if first == lane - 1 {
                    format!("{first}")
                } else {
                    format!("{first}-{}", lane - 1)
                });
                start = None;
            }
            _ => {}
        }
    }
    parts.join(", ")
}

/// A product that a warp has issued and not completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingProduct {
    /// The index of its instruction.
    pub(super) instruction: usize,
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) adds: bool,
    pub(super) number: u32,
}

/// The `wgmma` operations of a warp.
#[derive(Debug, Default)]
pub(super) struct Products {
    pub(super) issued: u32,
    pub(super) pending: VecDeque<PendingProduct>,
    /// For each group that was committed and not waited for, the number of its last product.
    pub(super) groups: VecDeque<u32>,
    pub(super) fenced: bool,
    /// The products that nobody has waited for: number and instruction.
    pub(super) in_flight: VecDeque<(u32, usize)>,
    /// The registers that they read and write.
    pub(super) busy: HashSet<Reg>,
}

/// Where a warp last found an mbarrier incomplete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spin {
    pub(super) instruction: usize,
    /// How often the block had changed by then.
    pub(super) changes: u64,
    /// The instructions that the warp has executed since.
    pub(super) since: u32,
}

/// What registers hold at first.
const UNWRITTEN: Lanes = [0xcdcd_cdcd_cdcd_cdcd; 32];

/// 32 threads that run together.
#[derive(Debug)]
pub(super) struct Warp {
    /// The number of the warp in its block.
    pub(super) number: usize,
    pub(super) registers: Vec<Lanes>,
    /// Lanes that exist and have not exited.
    pub(super) live: u32,
    /// Lanes that wait at a barrier of the block.
    pub(super) at_barrier: u32,
    /// Lanes that wait at a collective instruction for other lanes of the warp.
    pub(super) blocked: u32,
    /// Lanes that found an mbarrier incomplete and continue in the next turn.
    pub(super) stalled: u32,
    /// The instruction of all live lanes, unless `split`.
    common: usize,
    split: bool,
    pc: [usize; 32],
    pub(super) tid: [[u32; 32]; 3],
    pub(super) local: Vec<u8>,
    pub(super) local_written: Vec<bool>,
    pub(super) products: Products,
    pub(super) spin: Option<Spin>,
}

impl Warp {
    pub(super) fn new(number: usize, block: [u32; 3], registers: usize, local: usize) -> Self {
        let threads = block.iter().map(|d| *d as usize).product::<usize>();
        let here = threads.saturating_sub(number * 32).min(32);
        let thread = |lane: usize| (number * 32 + lane) as u32;
        let of = |f: &dyn Fn(u32) -> u32| std::array::from_fn(|lane| f(thread(lane)));
        Self {
            number,
            registers: vec![UNWRITTEN; registers],
            live: if here == 32 {
                u32::MAX
            } else {
                (1 << here) - 1
            },
            at_barrier: 0,
            blocked: 0,
            stalled: 0,
            common: 0,
            split: false,
            pc: [0; 32],
            tid: [
                of(&|t| t % block[0]),
                of(&|t| t / block[0] % block[1]),
                of(&|t| t / block[0] / block[1]),
            ],
            local: vec![0xcd; local * 32],
            local_written: vec![false; local * 32],
            products: Products::default(),
            spin: None,
        }
    }

    /// Makes the warp as a new one is. Its memory is used again, which costs less than new memory.
    pub(super) fn reset(&mut self, block: [u32; 3]) {
        let mut registers = std::mem::take(&mut self.registers);
        registers.fill(UNWRITTEN);
        let (mut local, mut local_written) = (
            std::mem::take(&mut self.local),
            std::mem::take(&mut self.local_written),
        );
        local.fill(0xcd);
        local_written.fill(false);
        *self = Self {
            registers,
            local,
            local_written,
            ..Self::new(self.number, block, 0, 0)
        };
    }

    pub(super) fn pc(&self, lane: usize) -> usize {
        if self.split {
            self.pc[lane]
        } else {
            self.common
        }
    }

    /// Moves lanes to an instruction.
    pub(super) fn go(&mut self, mask: u32, to: usize) {
        if mask == self.live {
            self.common = to;
            self.split = false;
            return;
        }
        if mask == 0 {
            return;
        }
        if !self.split {
            self.pc = [self.common; 32];
            self.split = true;
        }
        for lane in lanes(mask) {
            self.pc[lane] = to;
        }
    }

    /// Ends lanes.
    pub(super) fn exit(&mut self, mask: u32) {
        self.live &= !mask;
    }

    /// The next instruction and the lanes that execute it: those with the least address among lanes that can run. Lanes that
    /// are blocked at the same instruction join them.
    pub(super) fn next(&mut self) -> Option<(usize, u32)> {
        let waiting = self.at_barrier | self.stalled;
        let ready = self.live & !waiting & !self.blocked;
        if ready == 0 {
            return None;
        }
        if !self.split {
            return Some((self.common, self.live & !waiting));
        }
        let pc = lanes(ready).map(|lane| self.pc[lane]).min()?;
        let group = lanes(self.live & !waiting).filter(|lane| self.pc[*lane] == pc);
        let group = group.fold(0, |mask, lane| mask | 1 << lane);
        if group == self.live {
            self.common = pc;
            self.split = false;
        }
        Some((pc, group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_instruction_runs_first() {
        let mut warp = Warp::new(1, [40, 1, 1], 0, 0);
        assert_eq!(warp.live, 0xff);
        assert_eq!(warp.next(), Some((0, 0xff)));
        warp.go(0x0f, 7);
        warp.go(0xf0, 3);
        assert_eq!(warp.next(), Some((3, 0xf0)));
        warp.go(0xf0, 7);
        assert_eq!(warp.next(), Some((7, 0xff)));
        warp.blocked = 0x01;
        warp.go(0x01, 2);
        assert_eq!(warp.next(), Some((7, 0xfe)));
        assert_eq!(warp.tid[0][0], 32);
    }

    #[test]
    fn masks_are_shown_as_ranges() {
        assert_eq!(shown(0b1000_0111), "0-2, 7");
        assert_eq!(shown(u32::MAX), "0-31");
    }
}
