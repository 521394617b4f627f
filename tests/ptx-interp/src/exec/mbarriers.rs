//! Barriers in shared memory that count arrivals and bytes.

use crate::exec::block::Block;
use crate::exec::loads::{check_aligned, in_shared};
use crate::exec::tiles::{Task, TaskKind};
use crate::exec::warp::lanes;
use crate::ir::{Address, MbarrierOp, Operand};
use crate::memory::{MBARRIERS, join};
use crate::options::Completion;
use crate::report::{Finding, Step, at_lane, problem};

/// The most bytes that a phase can expect.
const MOST_BYTES: i64 = (1 << 20) - 1;

/// The state of an mbarrier.
#[derive(Debug)]
pub(super) struct MbarrierState {
    /// Its number among those that the block has.
    pub(super) number: usize,
    /// The thread that initialised it, and when.
    born: (usize, u32),
    /// Arrivals of a phase.
    count: i64,
    /// Arrivals that the present phase lacks.
    pending: i64,
    /// Bytes that the present phase lacks; fewer than 0 have come before they were expected.
    bytes: i64,
    phase: u64,
    /// What arrivals of the present phase have released.
    arriving: Vec<u32>,
    /// What the last complete phase passes on.
    passed: Vec<u32>,
}

impl MbarrierState {
    /// What the phase lacks, for reports.
    pub(super) fn missing(&self) -> (i64, i64) {
        (self.pending, self.bytes)
    }

    /// Ends the phase if nothing is missing.
    fn turn(&mut self) -> bool {
        if self.pending > 0 || self.bytes != 0 {
            return false;
        }
        self.phase += 1;
        self.pending = self.count;
        join(&mut self.passed, &self.arriving);
        true
    }
}

impl Block<'_> {
    /// An mbarrier that a thread uses after its initialisation.
    fn known_mbarrier(&mut self, thread: usize, address: u64) -> Step<&mut MbarrierState> {
        let races = self.context.options.races;
        let Some(state) = self.mbarriers.get_mut(&address) else {
            return problem(
                Finding::Mbarrier,
                format!("there is no mbarrier at {address:#x}: mbarrier.init is missing"),
            );
        };
        let (by, clock) = state.born;
        if races && self.clocks.row(thread)[by] < clock {
            let message = format!(
                "thread {thread} uses the mbarrier at {address:#x}, and nothing orders that after its initialisation by thread {by}"
            );
            return problem(Finding::Mbarrier, message);
        }
        Ok(state)
    }

    /// Executes an mbarrier instruction. The result are the lanes that found a phase incomplete.
    pub(super) fn mbarrier(
        &mut self,
        w: usize,
        mask: u32,
        op: &MbarrierOp,
        at: Address,
    ) -> Step<u32> {
        let addresses = self.addresses(w, at);
        let mut incomplete = 0;
        for lane in lanes(mask) {
            let address = in_shared(addresses[lane]);
            let done = at_lane(lane, self.mbarrier_lane(w, lane, op, address))?;
            incomplete |= u32::from(!done) << lane;
        }
        Ok(incomplete)
    }

    fn mbarrier_lane(
        &mut self,
        w: usize,
        lane: usize,
        op: &MbarrierOp,
        address: u64,
    ) -> Step<bool> {
        let thread = w * 32 + lane;
        let value = |block: &Self, operand: Operand| block.fetch(w, operand)[lane];
        check_aligned(address, 8, "use of an mbarrier")?;
        match op {
            MbarrierOp::Init { count } => {
                let count = value(self, *count) as u32;
                self.init_mbarrier(thread, address, count)?;
            }
            MbarrierOp::Inval => {
                self.known_mbarrier(thread, address)?;
                self.mbarriers.remove(&address);
                self.shared.mark_mbarrier(address, false)?;
            }
            MbarrierOp::Arrive {
                state,
                count,
                transactions,
                drop,
            } => {
                let count = value(self, *count) as u32;
                let bytes = transactions.map(|operand| value(self, operand) as u32);
                let barrier = self.known_mbarrier(thread, address)?;
                let token = barrier.phase << 32 | barrier.pending as u64;
                if *drop {
                    barrier.count -= i64::from(count);
                }
                self.expect_bytes(thread, address, bytes.unwrap_or(0).into())?;
                self.arrive(thread, address, count)?;
                if let Some(state) = state {
                    self.warps[w].registers[*state as usize][lane] = token;
                }
            }
            MbarrierOp::ExpectTx { transactions } => {
                let bytes = value(self, *transactions) as u32;
                self.expect_bytes(thread, address, bytes.into())?;
            }
            MbarrierOp::CompleteTx { transactions } => {
                let bytes = value(self, *transactions) as u32;
                self.known_mbarrier(thread, address)?;
                self.complete_bytes(address, bytes.into())?;
            }
            MbarrierOp::Test {
                done,
                phase,
                parity,
                ..
            } => {
                let phase = value(self, *phase);
                let barrier = self.known_mbarrier(thread, address)?;
                let complete = if *parity {
                    barrier.phase & 1 != phase & 1
                } else {
                    barrier.phase > phase >> 32
                };
                if complete
                    && self.context.options.races
                    && let Some(barrier) = self.mbarriers.get(&address)
                {
                    self.clocks.acquire(thread, &barrier.passed);
                }
                self.warps[w].registers[*done as usize][lane] = u64::from(complete);
                return Ok(complete);
            }
            MbarrierOp::PendingCount { count, state } => {
                let token = value(self, *state);
                self.warps[w].registers[*count as usize][lane] = token & 0xffff_ffff;
            }
            MbarrierOp::ArriveAfterCopies { counted } => {
                let barrier = self.known_mbarrier(thread, address)?;
                if !counted {
                    barrier.pending += 1;
                }
                let last = self.copies[thread].issued;
                self.submit(Task {
                    thread,
                    kind: TaskKind::ArriveAfterCopies {
                        mbarrier: address,
                        last,
                    },
                })?;
            }
        }
        self.changes += 1;
        Ok(true)
    }

    fn init_mbarrier(&mut self, thread: usize, address: u64, count: u32) -> Step<()> {
        if count == 0 || count >= 1 << 20 {
            return problem(
                Finding::Mbarrier,
                format!("an mbarrier cannot count {count} arrivals"),
            );
        }
        if self.mbarriers.contains_key(&address) {
            return problem(
                Finding::Mbarrier,
                format!("the mbarrier at {address:#x} is initialised a second time"),
            );
        }
        let touch = self.by_thread(thread, address, 8, true);
        self.touch_shared(&touch)?;
        self.shared.mark_mbarrier(address, true)?;
        // The least number that no mbarrier has: two with the same one would share the clock of their copies.
        let taken = |number: &usize| self.mbarriers.values().any(|state| state.number == *number);
        let state = MbarrierState {
            number: (0..MBARRIERS)
                .find(|number| !taken(number))
                .unwrap_or(MBARRIERS),
            born: (thread, touch.clock),
            count: count.into(),
            pending: count.into(),
            bytes: 0,
            phase: 0,
            arriving: self.clocks.empty(),
            passed: self.clocks.empty(),
        };
        self.mbarriers.insert(address, state);
        Ok(())
    }

    fn expect_bytes(&mut self, thread: usize, address: u64, bytes: i64) -> Step<()> {
        let barrier = self.known_mbarrier(thread, address)?;
        barrier.bytes += bytes;
        if barrier.bytes > MOST_BYTES {
            let message = format!(
                "the mbarrier at {address:#x} expects {} bytes; at most {MOST_BYTES} are possible",
                barrier.bytes
            );
            return problem(Finding::Mbarrier, message);
        }
        Ok(())
    }

    /// Counts arrivals of a thread, and what it has done until now.
    fn arrive(&mut self, thread: usize, address: u64, count: u32) -> Step<()> {
        let races = self.context.options.races;
        let Some(barrier) = self.mbarriers.get_mut(&address) else {
            return problem(
                Finding::Mbarrier,
                format!("there is no mbarrier at {address:#x}"),
            );
        };
        barrier.pending -= i64::from(count);
        if barrier.pending < 0 {
            let message = format!(
                "{} more arrivals than the mbarrier at {address:#x} expects in its phase",
                -barrier.pending
            );
            return problem(Finding::Mbarrier, message);
        }
        if races {
            self.clocks.release(thread, &mut barrier.arriving);
        }
        self.changes += u64::from(barrier.turn());
        Ok(())
    }

    /// Counts bytes that a copy has delivered.
    fn complete_bytes(&mut self, address: u64, bytes: i64) -> Step<()> {
        let Some(barrier) = self.mbarriers.get_mut(&address) else {
            return problem(
                Finding::Mbarrier,
                format!("a copy signals an mbarrier at {address:#x}, and there is none"),
            );
        };
        barrier.bytes -= bytes;
        if barrier.bytes < -MOST_BYTES {
            return problem(
                Finding::Mbarrier,
                format!("the mbarrier at {address:#x} received bytes that nobody expected"),
            );
        }
        self.changes += 1 + u64::from(barrier.turn());
        Ok(())
    }

    /// A copy that signals an mbarrier has written its bytes.
    pub(super) fn copy_done(
        &mut self,
        address: u64,
        bytes: usize,
        (agent, clock): (usize, u32),
    ) -> Step<()> {
        if self.context.options.races
            && let Some(barrier) = self.mbarriers.get_mut(&address)
        {
            barrier.arriving[agent] = barrier.arriving[agent].max(clock);
        }
        self.complete_bytes(address, bytes as i64)
    }

    /// The agent of the copies that signal an mbarrier.
    pub(super) fn mbarrier_agent(&mut self, thread: usize, address: u64) -> Step<usize> {
        check_aligned(address, 8, "use of an mbarrier")?;
        let number = self.known_mbarrier(thread, address)?.number;
        Ok(self.context.agents.mbarrier(number))
    }

    /// The copies of a thread up to a number are done, and so it arrives.
    pub(super) fn arrive_after_copies(
        &mut self,
        thread: usize,
        address: u64,
        last: u32,
    ) -> Step<()> {
        self.complete_copies(thread, last)?;
        let agent = self.context.agents.copies(thread);
        let races = self.context.options.races;
        let Some(barrier) = self.mbarriers.get_mut(&address) else {
            return problem(
                Finding::Mbarrier,
                format!("there is no mbarrier at {address:#x}"),
            );
        };
        if races {
            // Only the copies are ordered before the phase ends, not what the thread itself did.
            barrier.arriving[agent] = barrier.arriving[agent].max(last);
        }
        barrier.pending -= 1;
        if barrier.pending < 0 {
            return problem(
                Finding::Mbarrier,
                format!("more arrivals than the mbarrier at {address:#x} expects in its phase"),
            );
        }
        self.changes += 1 + u64::from(barrier.turn());
        Ok(())
    }

    /// Runs an asynchronous operation at once, or keeps it for later.
    pub(super) fn submit(&mut self, task: Task) -> Step<()> {
        if self.context.options.completion == Completion::Early {
            return self.run_task(task);
        }
        self.tasks.push_back(task);
        Ok(())
    }

    /// At the end of a block no mbarrier may wait for bytes.
    pub(super) fn check_mbarriers(&self) -> Step<()> {
        let open = self
            .mbarriers
            .iter()
            .filter(|(_, barrier)| barrier.bytes != 0);
        let Some((address, barrier)) = open.min_by_key(|(address, _)| **address) else {
            return Ok(());
        };
        let bytes = barrier.bytes;
        let what = if bytes > 0 {
            format!("expects {bytes} more bytes")
        } else {
            format!("received {} bytes that nobody expected", -bytes)
        };
        problem(
            Finding::Mbarrier,
            format!("the block ended while the mbarrier at {address:#x} {what}"),
        )
    }
}
