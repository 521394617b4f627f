//! Exchanges, votes and reductions among the lanes of a warp.

use crate::exec::block::Block;
use crate::exec::warp::{lanes, shown};
use crate::ir::{Condition, Operand, ReduxOp, Reg, ShuffleMode, VoteMode};
use crate::report::{Finding, Step, at_lane, problem};
use crate::types::truncated;

/// The lane that a lane reads, and whether that lies in its segment; outside of it a lane reads itself.
pub(super) fn source(mode: ShuffleMode, lane: u32, by: u32, clamp: u32) -> (u32, bool) {
    let (by, segment) = (by & 31, clamp >> 8 & 31);
    let last = (lane & segment) | (clamp & 31 & !segment);
    let (from, valid) = match mode {
        ShuffleMode::Up => {
            let from = lane.wrapping_sub(by) as i32;
            (from as u32, from >= last as i32)
        }
        ShuffleMode::Down => (lane + by, lane + by <= last),
        ShuffleMode::Butterfly => (lane ^ by, lane ^ by <= last),
        ShuffleMode::Index => {
            let from = (lane & segment) | (by & !segment);
            (from, from <= last)
        }
    };
    if valid { (from, true) } else { (lane, false) }
}

/// A `shfl.sync`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shuffle {
    pub(super) mode: ShuffleMode,
    pub(super) dst: Option<Reg>,
    pub(super) valid: Option<Reg>,
    pub(super) src: Operand,
    pub(super) lane: Operand,
    pub(super) clamp: Operand,
}

impl Block<'_> {
    pub(super) fn shuffle(&mut self, w: usize, mask: u32, shuffle: Shuffle) -> Step<()> {
        let [src, by, clamp] = [shuffle.src, shuffle.lane, shuffle.clamp].map(|o| self.fetch(w, o));
        let (mut out, mut inside) = ([0; 32], [0; 32]);
        for lane in lanes(mask) {
            let (from, valid) = source(
                shuffle.mode,
                lane as u32,
                by[lane] as u32,
                clamp[lane] as u32,
            );
            if mask >> from & 1 == 0 {
                let what = format!(
                    "lane {lane} reads lane {from}, which does not execute the instruction"
                );
                return at_lane(lane, problem(Finding::Divergence, what));
            }
            out[lane] = truncated(src[from as usize], 4);
            inside[lane] = u64::from(valid);
        }
        if let Some(dst) = shuffle.dst {
            self.put(w, mask, dst, &out);
        }
        if let Some(valid) = shuffle.valid {
            self.put(w, mask, valid, &inside);
        }
        Ok(())
    }

    pub(super) fn vote(
        &mut self,
        w: usize,
        mask: u32,
        mode: VoteMode,
        dst: Reg,
        condition: Condition,
    ) {
        let holding = self.holds(w, condition) & mask;
        let result = match mode {
            VoteMode::All => u64::from(holding == mask),
            VoteMode::Any => u64::from(holding != 0),
            VoteMode::Uniform => u64::from(holding == mask || holding == 0),
            VoteMode::Ballot => holding.into(),
        };
        self.put(w, mask, dst, &[result; 32]);
    }

    /// For each lane the lanes with the same value, or whether all lanes have the same value.
    pub(super) fn match_lanes(
        &mut self,
        w: usize,
        mask: u32,
        all: bool,
        (dst, valid): (Option<Reg>, Option<Reg>),
        (src, size): (Operand, usize),
    ) {
        let values = self.fetch(w, src).map(|value| truncated(value, size));
        let mut equal = [0u64; 32];
        for lane in lanes(mask) {
            let same = lanes(mask).filter(|other| values[*other] == values[lane]);
            equal[lane] = same.fold(0, |found, other| found | 1 << other);
        }
        let every = lanes(mask).all(|lane| equal[lane] == u64::from(mask));
        if all {
            equal = [if every { mask.into() } else { 0 }; 32];
        }
        if let Some(dst) = dst {
            self.put(w, mask, dst, &equal);
        }
        if let Some(valid) = valid {
            self.put(w, mask, valid, &[u64::from(every); 32]);
        }
    }

    pub(super) fn redux(
        &mut self,
        w: usize,
        mask: u32,
        (op, signed): (ReduxOp, bool),
        dst: Reg,
        src: Operand,
    ) {
        let values = self.fetch(w, src);
        // A signed order is the unsigned one with the sign flipped.
        let flip = if signed { 0x8000_0000 } else { 0u32 };
        let all = lanes(mask).map(|lane| values[lane] as u32);
        let result = match op {
            ReduxOp::Add => all.reduce(u32::wrapping_add),
            ReduxOp::Min => all.map(|x| x ^ flip).min().map(|x| x ^ flip),
            ReduxOp::Max => all.map(|x| x ^ flip).max().map(|x| x ^ flip),
            ReduxOp::And => all.reduce(|a, b| a & b),
            ReduxOp::Or => all.reduce(|a, b| a | b),
            ReduxOp::Xor => all.reduce(|a, b| a ^ b),
        };
        self.put(w, mask, dst, &[result.unwrap_or(0).into(); 32]);
    }

    /// Chooses the first lane.
    pub(super) fn elect(&mut self, w: usize, mask: u32, lane: Option<Reg>, chosen: Option<Reg>) {
        let first = mask.trailing_zeros() as usize;
        if let Some(reg) = lane {
            self.put(w, mask, reg, &[first as u64; 32]);
        }
        if let Some(reg) = chosen {
            self.put(
                w,
                mask,
                reg,
                &std::array::from_fn(|lane| u64::from(lane == first)),
            );
        }
    }

    /// A problem if lanes of a warp have exited where all 32 are needed.
    pub(super) fn needs_whole_warp(&self, w: usize) -> Step<()> {
        match self.warps[w].live {
            u32::MAX => Ok(()),
            live => problem(
                Finding::Divergence,
                format!(
                    "it needs all 32 lanes of the warp, and lanes {} do not run",
                    shown(!live)
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_read_within_their_segment() {
        // __shfl_down_sync with width 32 and with width 8.
        assert_eq!(source(ShuffleMode::Down, 30, 1, 31), (31, true));
        assert_eq!(source(ShuffleMode::Down, 31, 1, 31), (31, false));
        let width_8 = (32 - 8) << 8 | 31;
        assert_eq!(source(ShuffleMode::Down, 6, 2, width_8), (6, false));
        assert_eq!(source(ShuffleMode::Down, 6, 1, width_8), (7, true));
        // __shfl_up_sync has a clamp of 0.
        assert_eq!(source(ShuffleMode::Up, 3, 3, 0), (0, true));
        assert_eq!(source(ShuffleMode::Up, 2, 3, 0), (2, false));
        assert_eq!(source(ShuffleMode::Up, 9, 2, (32 - 8) << 8), (9, false));
        assert_eq!(source(ShuffleMode::Butterfly, 5, 16, 31), (21, true));
        assert_eq!(source(ShuffleMode::Index, 13, 2, width_8), (10, true));
        assert_eq!(source(ShuffleMode::Index, 13, 34, 31), (2, true));
    }
}
