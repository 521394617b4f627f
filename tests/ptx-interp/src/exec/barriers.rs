//! Barriers of a block and of a warp.

use crate::exec::block::Block;
use crate::exec::warp::lanes;
use crate::ir::{BarrierReduction, Condition, Operand, Reg};
use crate::report::{Finding, Step, problem};

/// Lanes of a warp that wait at a barrier, and where the result of a reduction goes.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    warp: usize,
    mask: u32,
    result: Option<(BarrierReduction, Reg)>,
}

/// One of the 16 barriers of a block.
#[derive(Debug, Default)]
pub(super) struct BarrierState {
    arrived: usize,
    /// The threads that take part, once the first one has arrived.
    expected: Option<usize>,
    /// Those for which the predicate of a reduction holds.
    holding: usize,
    waiting: Vec<Waiting>,
    released: Vec<u32>,
}

impl BarrierState {
    /// What is missing, for the report of a deadlock.
    pub(super) fn missing(&self) -> Option<(usize, usize)> {
        self.expected.map(|expected| (self.arrived, expected))
    }
}

/// A barrier instruction with its operands in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) id: Operand,
    pub(super) threads: Option<Operand>,
    pub(super) arrive: bool,
    pub(super) reduce: Option<(BarrierReduction, Reg, Condition)>,
}

impl Block<'_> {
    /// Lets lanes arrive at a barrier. Lanes that wait keep their place until the barrier completes.
    pub(super) fn barrier(&mut self, w: usize, mask: u32, pc: usize, arrival: Arrival) -> Step<()> {
        let id = self.uniform(w, mask, arrival.id, "the number of the barrier")?;
        let Some(id) = usize::try_from(id)
            .ok()
            .filter(|id| *id < self.barriers.len())
        else {
            return problem(
                Finding::Barrier,
                format!("there is no barrier {id}: a block has 16"),
            );
        };
        let all = self.context.threads();
        let expected = match arrival.threads {
            Some(operand) => self.uniform(w, mask, operand, "the number of threads")? as usize,
            None => all,
        };
        if arrival.threads.is_some()
            && (expected == 0 || !expected.is_multiple_of(32) || expected > all)
        {
            let message = format!(
                "barrier {id} is for {expected} threads: a multiple of 32 up to {all} is possible"
            );
            return problem(Finding::Barrier, message);
        }
        if arrival.threads.is_none() {
            let live: u32 = self.warps.iter().map(|warp| warp.live.count_ones()).sum();
            if (live as usize) < all {
                let message = format!(
                    "barrier {id} is for all {all} threads of the block, and {} have exited",
                    all - live as usize
                );
                return problem(Finding::Barrier, message);
            }
        }
        let holding = arrival
            .reduce
            .map_or(0, |(_, _, condition)| self.holds(w, condition) & mask);
        let state = &mut self.barriers[id];
        match state.expected {
            Some(other) if other != expected => {
                let message = format!(
                    "barrier {id} is for {expected} threads here, and for {other} where others wait"
                );
                return problem(Finding::Barrier, message);
            }
            _ => state.expected = Some(expected),
        }
        state.arrived += mask.count_ones() as usize;
        state.holding += holding.count_ones() as usize;
        if state.arrived > expected {
            let message = format!(
                "{} threads arrived at barrier {id}, which is for {expected}",
                state.arrived
            );
            return problem(Finding::Barrier, message);
        }
        if self.context.options.races {
            if state.released.is_empty() {
                state.released = self.clocks.empty();
            }
            for lane in lanes(mask) {
                self.clocks.release(w * 32 + lane, &mut state.released);
            }
        }
        let result = arrival.reduce.map(|(op, reg, _)| (op, reg));
        if arrival.arrive {
            self.warps[w].go(mask, pc + 1);
        } else {
            state.waiting.push(Waiting {
                warp: w,
                mask,
                result,
            });
            self.warps[w].at_barrier |= mask;
        }
        if self.barriers[id].arrived == expected {
            self.complete_barrier(id);
        }
        self.changes += 1;
        Ok(())
    }

    fn complete_barrier(&mut self, id: usize) {
        let state = std::mem::take(&mut self.barriers[id]);
        let waiting: u32 = state.waiting.iter().map(|w| w.mask.count_ones()).sum();
        for Waiting {
            warp: w,
            mask,
            result,
        } in state.waiting
        {
            if self.context.options.races {
                for lane in lanes(mask) {
                    self.clocks.meet(w * 32 + lane, &state.released);
                }
            }
            if let Some((op, reg)) = result {
                let value = match op {
                    BarrierReduction::Popc => state.holding as u64,
                    BarrierReduction::And => u64::from(state.holding == state.arrived),
                    BarrierReduction::Or => u64::from(state.holding > 0),
                };
                self.put(w, mask, reg, &[value; 32]);
            }
            let warp = &mut self.warps[w];
            warp.at_barrier &= !mask;
            // Lanes may wait at barriers in several places; they continue behind their own.
            for lane in lanes(mask) {
                let next = warp.pc(lane) + 1;
                if warp.live == mask {
                    warp.go(mask, next);
                    break;
                }
                warp.go(1 << lane, next);
            }
        }
        if self.context.options.races && waiting as usize == self.context.threads() {
            self.clocks.all_met(&state.released);
        }
    }

    /// `bar.warp.sync`: lanes of a warp see each other's accesses.
    pub(super) fn sync_warp(&mut self, w: usize, mask: u32) {
        if !self.context.options.races {
            return;
        }
        let mut released = self.clocks.empty();
        for lane in lanes(mask) {
            self.clocks.release(w * 32 + lane, &mut released);
        }
        for lane in lanes(mask) {
            self.clocks.meet(w * 32 + lane, &released);
        }
    }
}
