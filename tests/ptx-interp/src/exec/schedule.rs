//! The order in which warps of a block take turns, until all have exited.

use crate::exec::block::Block;
use crate::exec::step::Progress;
use crate::exec::warp::Spin;
use crate::options::{Random, WarpOrder};
use crate::report::{Finding, Problem};

/// Instructions of a turn in a round.
const TURN: usize = 16;
/// The most instructions of a turn whose length is drawn.
const DRAWN_TURN: usize = 64;

/// The instructions of a loop that waits for an mbarrier; a warp that executes more does something else.
const LOOP: u32 = 64;
/// If nothing changes while each warp executes so many instructions, no warp will ever continue.
const QUIET: u64 = 200_000;

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// The warp could execute nothing.
    Waited,
    /// The warp looks again and again at an mbarrier that has not changed.
    Spun,
    Ran,
}

/// Where a block failed: the warp, if one was running, and what happened.
pub(super) struct Failure {
    pub(super) warp: Option<usize>,
    pub(super) instruction: Option<usize>,
    pub(super) problem: Box<Problem>,
}

impl Block<'_> {
    /// Runs the block to its end.
    pub(super) fn run(&mut self, random: &mut Random) -> Result<(), Failure> {
        let whole = |problem| Failure {
            warp: None,
            instruction: None,
            problem,
        };
        let order = self.context.options.order;
        let count = self.warps.len();
        // When the block last changed: how often by then, and after how many instructions.
        let mut last = (0, 0);
        while self.warps.iter().any(|warp| warp.live != 0) {
            let mut round = Turn::Waited;
            for turn in 0..count {
                let (w, length) = match order {
                    WarpOrder::RoundRobin => (turn, TURN),
                    WarpOrder::Greedy => (turn, usize::MAX),
                    WarpOrder::Random(_) => (random.below(count), 1 + random.below(DRAWN_TURN)),
                };
                round = round.max(self.turn(w, length)?);
                // Late completion means when a thread waits or nothing can run; an order that is drawn draws this too.
                let drawn = matches!(order, WarpOrder::Random(_)) && !self.tasks.is_empty();
                if drawn && random.below(8) == 0 {
                    let index = random.below(self.tasks.len());
                    self.run_next_task(index).map_err(whole)?;
                }
            }
            if round < Turn::Ran && matches!(order, WarpOrder::Random(_)) {
                // The draw may have missed the one warp that can run.
                for w in 0..count {
                    round = round.max(self.turn(w, TURN)?);
                }
            }
            let instructions = self.stats.warp_instructions;
            if last.0 != self.changes {
                last = (self.changes, instructions);
            }
            if round == Turn::Ran || self.run_next_task(0).map_err(whole)? {
                continue;
            }
            let live = self.warps.iter().filter(|warp| warp.live != 0).count() as u64;
            if live > 0 && (round == Turn::Waited || instructions - last.1 > live * QUIET) {
                return Err(self.deadlock());
            }
        }
        while self.run_next_task(0).map_err(whole)? {}
        self.finish_copies().map_err(whole)?;
        self.check_bulk().map_err(whole)?;
        self.check_mbarriers().map_err(whole)
    }

    /// Lets a warp run for some instructions.
    fn turn(&mut self, w: usize, length: usize) -> Result<Turn, Failure> {
        self.warps[w].stalled = 0;
        let mut turn = Turn::Waited;
        for _ in 0..length {
            if self.warps[w].live == 0 {
                break;
            }
            let next = self.warps[w].next();
            let at = next.map(|(pc, _)| pc);
            let failed = |problem| Failure {
                warp: Some(w),
                instruction: at,
                problem,
            };
            if self.stats.warp_instructions >= self.context.options.budget {
                let budget = self.context.options.budget;
                let message = format!(
                    "the launch executed {budget} instructions, all that its budget allows"
                );
                let problem = Problem {
                    finding: Finding::Budget,
                    lane: None,
                    message,
                };
                return Err(failed(Box::new(problem)));
            }
            match self.step(w, next).map_err(failed)? {
                Progress::Waits => break,
                Progress::Ran => {
                    turn = Turn::Ran;
                    if let Some(spin) = &mut self.warps[w].spin {
                        spin.since += 1;
                    }
                }
                Progress::Looked => turn = Turn::Ran,
            }
        }
        let changes = self.changes;
        let spins = |spin: Spin| spin.changes == changes && spin.since <= LOOP;
        if turn == Turn::Ran && self.warps[w].spin.is_some_and(spins) {
            turn = Turn::Spun;
        }
        Ok(turn)
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
            let first = warp.live.trailing_zeros() as usize;
            warp.spin
                .map_or_else(|| warp.pc(first), |spin| spin.instruction)
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
