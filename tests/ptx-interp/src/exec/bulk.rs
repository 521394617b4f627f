//! Issues copies to the asynchronous unit, and waits for them.

use crate::exec::block::{Block, Touch};
use crate::exec::loads::{check_aligned, in_shared};
use crate::exec::tiles::{Source, Task, TaskKind};
use crate::exec::warp::lanes;
use crate::ir::{Address, BulkOp, Operand};
use crate::report::{Finding, Step, at_lane, problem};

/// The bulk stores of a thread.
#[derive(Debug, Default)]
pub(super) struct BulkGroups {
    issued: u32,
    /// The number of the last copy that the thread waited for.
    waited: u32,
    /// For each group that was committed and not waited for, the number of its last copy.
    groups: std::collections::VecDeque<u32>,
}

impl Block<'_> {
    pub(super) fn bulk(&mut self, w: usize, mask: u32, op: &BulkOp) -> Step<()> {
        for lane in lanes(mask) {
            at_lane(lane, self.bulk_lane(w, lane, op))?;
        }
        Ok(())
    }

    fn bulk_lane(&mut self, w: usize, lane: usize, op: &BulkOp) -> Step<()> {
        let thread = w * 32 + lane;
        let address = |block: &Self, address: &Address| block.addresses(w, *address)[lane];
        match op {
            BulkOp::TensorLoad {
                shared,
                map,
                coordinates,
                mbarrier,
            } => {
                let from = self.tile(w, lane, map, coordinates)?;
                let (shared, mbarrier) = (address(self, shared), address(self, mbarrier));
                check_aligned(in_shared(shared), 128, "tile")?;
                self.issue_load(thread, in_shared(shared), from, in_shared(mbarrier))
            }
            BulkOp::Load {
                shared,
                global,
                size,
                mbarrier,
            } => {
                let from = self.contiguous(w, lane, global, *size)?;
                let (shared, mbarrier) = (address(self, shared), address(self, mbarrier));
                self.issue_load(thread, in_shared(shared), from, in_shared(mbarrier))
            }
            BulkOp::TensorStore {
                shared,
                map,
                coordinates,
            } => {
                let to = self.tile(w, lane, map, coordinates)?;
                let shared = in_shared(address(self, shared));
                check_aligned(shared, 128, "tile")?;
                self.issue_store(thread, shared, to)
            }
            BulkOp::Store {
                shared,
                global,
                size,
            } => {
                let to = self.contiguous(w, lane, global, *size)?;
                let shared = in_shared(address(self, shared));
                self.issue_store(thread, shared, to)
            }
            BulkOp::Commit => {
                let groups = &mut self.bulk_groups[thread];
                groups.groups.push_back(groups.issued);
                Ok(())
            }
            BulkOp::Wait { groups } => self.wait_bulk(thread, *groups),
        }
    }

    fn tile(
        &mut self,
        w: usize,
        lane: usize,
        map: &Address,
        coordinates: &[Operand],
    ) -> Step<Source> {
        let map = self.tensor_map(self.addresses(w, *map)[lane])?;
        if map.dims.len() != coordinates.len() {
            let message = format!(
                "a tensor of {} dims is copied with {} coordinates",
                map.dims.len(),
                coordinates.len()
            );
            return problem(Finding::Operand, message);
        }
        let at = coordinates
            .iter()
            .map(|c| self.fetch(w, *c)[lane] as i32)
            .collect();
        Ok(Source::Tile {
            map: Box::new(map),
            at,
        })
    }

    fn contiguous(&self, w: usize, lane: usize, global: &Address, size: Operand) -> Step<Source> {
        let (global, size) = (
            self.addresses(w, *global)[lane],
            self.fetch(w, size)[lane] as u32,
        );
        if !size.is_multiple_of(16) {
            return problem(
                Finding::Operand,
                format!("a bulk copy of {size} bytes, which is no multiple of 16"),
            );
        }
        check_aligned(global, 16, "bulk copy in global memory")?;
        Ok(Source::Bytes {
            global,
            size: size as usize,
        })
    }

    fn issue_load(&mut self, thread: usize, shared: u64, from: Source, mbarrier: u64) -> Step<()> {
        check_aligned(shared, 16, "bulk copy to shared memory")?;
        let agent = self.mbarrier_agent(thread, mbarrier)?;
        self.shared.check(shared, from.size(), "copy")?;
        for row in from.rows().iter().filter(|row| row.inside > 0) {
            let read = self.by_thread(thread, row.global, row.inside, false);
            self.touch_global(&read)?;
        }
        self.unit_clocks[agent] += 1;
        let clock = self.unit_clocks[agent];
        let size = from.size();
        self.touch_shared(&Touch {
            thread,
            others: 0,
            agent,
            clock,
            atomic: false,
            writes: true,
            address: shared,
            size,
        })?;
        self.submit(Task {
            thread,
            kind: TaskKind::Load {
                shared,
                from,
                mbarrier,
                agent,
                clock,
            },
        })
    }

    fn issue_store(&mut self, thread: usize, shared: u64, to: Source) -> Step<()> {
        check_aligned(shared, 16, "bulk copy from shared memory")?;
        self.bulk_groups[thread].issued += 1;
        let clock = self.bulk_groups[thread].issued;
        let agent = self.context.agents.bulk(thread);
        let size = to.size();
        self.shared.check(shared, size, "copy")?;
        // What the unit reads must be written, now.
        for at in (0..size as u64).step_by(16) {
            self.shared.read(shared + at, 16)?;
        }
        let touch = Touch {
            thread,
            others: 0,
            agent,
            clock,
            atomic: false,
            writes: false,
            address: shared,
            size,
        };
        self.touch_shared(&touch)?;
        self.needs_proxy_fence(&touch)?;
        for row in to.rows().iter().filter(|row| row.inside > 0) {
            let write = Touch {
                writes: true,
                address: row.global,
                size: row.inside,
                ..touch
            };
            self.touch_global(&write)?;
        }
        self.submit(Task {
            thread,
            kind: TaskKind::Store {
                shared,
                to,
                number: clock,
            },
        })
    }

    fn wait_bulk(&mut self, thread: usize, groups: usize) -> Step<()> {
        let state = &mut self.bulk_groups[thread];
        let mut last = 0;
        while state.groups.len() > groups {
            last = state.groups.pop_front().unwrap_or(0);
        }
        state.waited = state.waited.max(last);
        let waited = |task: &Task| match &task.kind {
            TaskKind::Store { number, .. } => task.thread == thread && *number <= last,
            _ => false,
        };
        while let Some(index) = self.tasks.iter().position(waited) {
            self.run_next_task(index)?;
        }
        if self.context.options.races {
            let agent = self.context.agents.bulk(thread);
            self.clocks.learn(thread, agent, last);
        }
        Ok(())
    }

    /// At the end of a block nothing may still read its shared memory.
    pub(super) fn check_bulk(&self) -> Step<()> {
        match self
            .bulk_groups
            .iter()
            .position(|groups| groups.waited < groups.issued)
        {
            None => Ok(()),
            Some(thread) => {
                let message = format!(
                    "the block ended before a bulk copy of thread {thread} had read its shared memory: cp.async.bulk.wait_group is missing"
                );
                problem(Finding::Race, message)
            }
        }
    }

    /// Notes that a thread passes what it has seen on to the asynchronous units (`fence.proxy.async`).
    pub(super) fn fence_proxy(&mut self, w: usize, mask: u32) {
        if !self.context.options.races {
            return;
        }
        for lane in lanes(mask) {
            let thread = w * 32 + lane;
            crate::memory::join(&mut self.fenced, self.clocks.row(thread));
            // What the thread does later has a later clock.
            let mut nobody = Vec::new();
            self.clocks.release(thread, &mut nobody);
        }
    }

    /// Checks that bytes which an asynchronous unit reads were not written by a thread without a fence since.
    pub(super) fn needs_proxy_fence(&mut self, touch: &Touch) -> Step<()> {
        if !self.context.options.races {
            return Ok(());
        }
        let fenced = &self.fenced;
        let threads = self.context.agents.threads;
        let unfenced = |agent: usize, clock: u32| agent < threads && fenced[agent] < clock;
        match self
            .shared_races
            .last_writer(touch.address, touch.size, unfenced)
        {
            None => Ok(()),
            Some(writer) => {
                let message = format!(
                    "{} reads {} bytes at {:#x} of shared memory that thread {writer} wrote; fence.proxy.async is missing",
                    self.context.agents.describe(touch.agent),
                    touch.size,
                    touch.address
                );
                problem(Finding::Race, message)
            }
        }
    }
}
