//! `cp.async`: copies of threads from global to shared memory.

use std::collections::VecDeque;

use crate::exec::block::{Block, Touch};
use crate::exec::loads::{check_aligned, in_shared};
use crate::exec::warp::lanes;
use crate::ir::{Address, Operand};
use crate::memory::faulted;
use crate::options::Completion;
use crate::report::{Finding, Step, at_lane, problem};

/// A copy that has been issued and has not taken effect.
#[derive(Clone, Copy, Debug)]
struct Copy {
    shared: u64,
    global: u64,
    size: usize,
    /// The bytes that are read; the rest becomes zero.
    read: usize,
    number: u32,
}

/// The copies of a thread.
#[derive(Debug, Default)]
pub(super) struct ThreadCopies {
    pub(super) issued: u32,
    pending: VecDeque<Copy>,
    /// For each group that was committed and not waited for, the number of its last copy.
    groups: VecDeque<u32>,
}

impl Block<'_> {
    pub(super) fn copy_async(
        &mut self,
        w: usize,
        mask: u32,
        (shared, global): (Address, Address),
        size: usize,
        read: Option<Operand>,
    ) -> Step<()> {
        let to = self.addresses(w, shared);
        let from = self.addresses(w, global);
        let read = read.map_or([size as u64; 32], |operand| self.fetch(w, operand));
        for lane in lanes(mask) {
            let thread = w * 32 + lane;
            let copies = &mut self.copies[thread];
            copies.issued += 1;
            let copy = Copy {
                shared: in_shared(to[lane]),
                global: from[lane],
                size,
                read: read[lane] as u32 as usize,
                number: copies.issued,
            };
            at_lane(lane, self.issue_copy(thread, copy))?;
        }
        Ok(())
    }

    fn issue_copy(&mut self, thread: usize, copy: Copy) -> Step<()> {
        if copy.read > copy.size {
            return problem(
                Finding::Operand,
                format!("cp.async reads {} bytes of {}", copy.read, copy.size),
            );
        }
        check_aligned(copy.shared, copy.size, "copy to shared memory")?;
        check_aligned(copy.global, copy.size, "copy from global memory")?;
        self.shared.check(copy.shared, copy.size, "copy")?;
        if copy.read > 0 {
            let read = self.by_thread(thread, copy.global, copy.read, false);
            self.touch_global(&read)?;
        }
        self.touch_shared(&Touch {
            thread,
            others: 0,
            agent: self.context.agents.copies(thread),
            clock: copy.number,
            atomic: false,
            writes: true,
            address: copy.shared,
            size: copy.size,
        })?;
        if self.context.options.completion == Completion::Early {
            return self.run_copy(copy);
        }
        self.copies[thread].pending.push_back(copy);
        Ok(())
    }

    fn run_copy(&mut self, copy: Copy) -> Step<()> {
        let mut bytes = [0; 16];
        if copy.read > 0 {
            faulted(self.memory.read(copy.global, &mut bytes[..copy.read]))?;
        }
        self.shared.write(copy.shared, &bytes[..copy.size])
    }

    /// Completes the copies of a thread up to a number.
    pub(super) fn complete_copies(&mut self, thread: usize, last: u32) -> Step<()> {
        while let Some(copy) = self.copies[thread]
            .pending
            .front()
            .copied()
            .filter(|copy| copy.number <= last)
        {
            self.copies[thread].pending.pop_front();
            at_lane(thread % 32, self.run_copy(copy))?;
        }
        Ok(())
    }

    pub(super) fn commit_copies(&mut self, w: usize, mask: u32) {
        for lane in lanes(mask) {
            let copies = &mut self.copies[w * 32 + lane];
            copies.groups.push_back(copies.issued);
        }
    }

    /// Waits until at most `groups` groups are in flight, or for everything.
    pub(super) fn wait_copies(&mut self, w: usize, mask: u32, groups: Option<usize>) -> Step<()> {
        for lane in lanes(mask) {
            let thread = w * 32 + lane;
            let copies = &mut self.copies[thread];
            let mut last = 0;
            while copies.groups.len() > groups.unwrap_or(0) {
                last = copies.groups.pop_front().unwrap_or(0);
            }
            if groups.is_none() {
                last = copies.issued;
            }
            self.complete_copies(thread, last)?;
            if self.context.options.races {
                let agent = self.context.agents.copies(thread);
                self.clocks.learn(thread, agent, last);
            }
        }
        Ok(())
    }

    /// At the end of a block, what nobody waited for takes effect too.
    pub(super) fn finish_copies(&mut self) -> Step<()> {
        for thread in 0..self.copies.len() {
            self.complete_copies(thread, u32::MAX)?;
        }
        Ok(())
    }
}
