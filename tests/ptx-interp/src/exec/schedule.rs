//! The order in which warps of a block take turns, until all have exited.

use crate::exec::block::Block;
use crate::exec::step::Progress;
use crate::memory::DeviceMemory;
use crate::options::{Completion, Random, WarpOrder};
use crate::report::{Finding, Problem};

/// Instructions of a turn in a round.
const TURN: usize = 16;
/// The most instructions of a turn whose length is drawn.
const DRAWN_TURN: usize = 64;

/// Where a block failed: the warp, if one was running, and what happened.
pub(super) struct Failure {
    pub(super) warp: Option<usize>,
    pub(super) instruction: Option<usize>,
    pub(super) problem: Box<Problem>,
}

impl<M: DeviceMemory + ?Sized> Block<'_, M> {
    /// Runs the block to its end.
    pub(super) fn run(&mut self, random: &mut Random) -> Result<(), Failure> {
        let whole = |problem| Failure {
            warp: None,
            instruction: None,
            problem,
        };
        let order = self.context.options.order;
        let count = self.warps.len();
        while self.warps.iter().any(|warp| warp.live != 0) {
            let mut idle = true;
            for turn in 0..count {
                let (w, length) = match order {
                    WarpOrder::RoundRobin => (turn, TURN),
                    WarpOrder::Greedy => (turn, usize::MAX),
                    WarpOrder::Random(_) => (random.below(count), 1 + random.below(DRAWN_TURN)),
                };
                idle &= !self.turn(w, length)?;
                let late = self.context.options.completion == Completion::Late;
                if late
                    && matches!(order, WarpOrder::Random(_))
                    && !self.tasks.is_empty()
                    && random.below(8) == 0
                {
                    let index = random.below(self.tasks.len());
                    self.run_next_task(index).map_err(whole)?;
                }
            }
            if idle && matches!(order, WarpOrder::Random(_)) {
                // The draw may have missed the one warp that can run.
                for w in 0..count {
                    idle &= !self.turn(w, TURN)?;
                }
            }
            if idle
                && !self.run_next_task(0).map_err(whole)?
                && self.warps.iter().any(|warp| warp.live != 0)
            {
                return Err(self.deadlock());
            }
        }
        while self.run_next_task(0).map_err(whole)? {}
        self.finish_copies().map_err(whole)?;
        self.check_bulk().map_err(whole)?;
        self.check_mbarriers().map_err(whole)
    }

    /// Lets a warp run for some instructions; false if nothing came of it.
    fn turn(&mut self, w: usize, length: usize) -> Result<bool, Failure> {
        self.warps[w].stalled = 0;
        let mut ran = false;
        let mut looked = false;
        for _ in 0..length {
            if self.warps[w].live == 0 {
                break;
            }
            let at = self.warps[w].next().map(|(pc, _)| pc);
            let failed = |problem| Failure {
                warp: Some(w),
                instruction: at,
                problem,
            };
            if self.stats.warp_instructions >= self.context.options.budget {
                let message = format!(
                    "the launch executed {} instructions, all that its budget allows",
                    self.context.options.budget
                );
                return Err(failed(Box::new(Problem {
                    finding: Finding::Budget,
                    lane: None,
                    message,
                })));
            }
            match self.step(w).map_err(failed)? {
                Progress::Ran => ran = true,
                Progress::Waits => break,
                Progress::Looked { again } => {
                    looked |= again;
                    ran |= !again;
                    if again {
                        // Whatever it did since it last looked changed nothing.
                        ran = false;
                    }
                    if self.warps[w].next().is_none() {
                        break;
                    }
                }
            }
        }
        Ok(ran && !looked)
    }

    /// Nothing can run any more.
    fn deadlock(&self) -> Failure {
        if let Some(w) = (0..self.warps.len()).find(|w| self.warps[*w].blocked != 0) {
            let problem = self.diverged(w);
            let lane = self.warps[w].blocked.trailing_zeros() as usize;
            return Failure {
                warp: Some(w),
                instruction: Some(self.warps[w].pc(lane)),
                problem,
            };
        }
        let mut causes = Vec::new();
        for (id, barrier) in self.barriers.iter().enumerate() {
            if let Some((arrived, expected)) = barrier.missing() {
                causes.push(format!("barrier {id} has {arrived} of {expected} threads"));
            }
        }
        let mut waited: Vec<(u64, (i64, i64))> = self
            .mbarriers
            .iter()
            .map(|(at, state)| (*at, state.missing()))
            .collect();
        waited.sort_unstable();
        for (address, (arrivals, bytes)) in waited {
            causes.push(format!(
                "the mbarrier at {address:#x} lacks {arrivals} arrivals and {bytes} bytes"
            ));
        }
        let exited = self.warps.iter().filter(|warp| warp.live == 0).count();
        causes.push(format!(
            "{exited} of {} warps have exited",
            self.warps.len()
        ));
        let barrier = self
            .barriers
            .iter()
            .any(|barrier| barrier.missing().is_some());
        let finding = if barrier {
            Finding::Barrier
        } else {
            Finding::Deadlock
        };
        let message = format!("no warp can run: {}", causes.join("; "));
        let stuck = (0..self.warps.len()).find(|w| self.warps[*w].live != 0);
        let pc = stuck.map(|w| {
            let warp = &self.warps[w];
            warp.spin.map_or_else(
                || warp.pc(warp.live.trailing_zeros() as usize),
                |(pc, _)| pc,
            )
        });
        let problem = Box::new(Problem {
            finding,
            lane: None,
            message,
        });
        Failure {
            warp: stuck,
            instruction: pc,
            problem,
        }
    }
}
