//! What follows from an operation that has run: races, frees, events.

use std::sync::Arc;

use crate::clock::{OpRef, knows};
use crate::codes;
use crate::execute::{Failed, Outcome};
use crate::heap::Heap;
use crate::ranges::Ranges;
use crate::records::Life;
use crate::state::State;
use crate::work::Work;

/// Virtual time that an operation takes, in nanoseconds. Kernels take one more for each instruction of a lane.
const OPERATION: u64 = 1000;

impl State {
    /// Notes that an operation has run.
    pub(crate) fn finish(&mut self, heap: &Heap, operation: &OpRef, work: Work, outcome: Outcome) {
        self.totals.operations += 1;
        if matches!(work, Work::Kernel(_) | Work::Native(_)) {
            let kind = self
                .totals
                .kinds
                .entry(operation.label.clone())
                .or_default();
            kind.count += 1;
            kind.lane_instructions += outcome.lane_instructions;
            kind.time += outcome.time;
        }
        self.nanoseconds += OPERATION + outcome.lane_instructions;
        if let Some(failed) = outcome.failed {
            self.report_failure(operation, failed);
        }
        let kernel = matches!(work, Work::Kernel(_) | Work::Native(_));
        for access in outcome.accesses {
            if kernel {
                self.check_peer(operation, access.id, access.device);
            }
            for (write, ranges) in [(false, access.read), (true, access.written)] {
                self.check_access(operation, access.id, write, ranges);
            }
        }
        if let Some((id, write, ranges)) = outcome.pinned {
            self.check_access(operation, id, write, ranges);
        }
        match work {
            Work::Record(event) => {
                let event = &mut self.events[event];
                let latest = event.record.as_ref();
                if latest.is_some_and(|latest| Arc::ptr_eq(latest, operation)) {
                    event.nanoseconds = self.nanoseconds;
                }
            }
            Work::Free(id) => self.free(heap, operation, id),
            Work::Host(_) => self.host_learns(operation.clock()),
            _ => {}
        }
        let stream = &mut self.streams[operation.stream];
        stream.done = operation.number;
        stream.running = None;
    }

    fn report_failure(&mut self, operation: &OpRef, failed: Failed) {
        let mut text = format!("{operation} failed: {}", failed.text);
        if let Some(Life::Freed(by)) = failed.freed.map(|id| &self.records[id].life) {
            let how = if by.before(operation) {
                "freed before by"
            } else {
                "and nothing orders it after the free by"
            };
            text = format!("{text}; {how} {by}");
        }
        self.report(failed.code, text);
    }

    /// A kernel, or what another double computes, uses memory of its own device, and of those whose peer access was enabled.
    fn check_peer(&mut self, operation: &OpRef, id: usize, owner: usize) {
        let device = self.streams[operation.stream].device;
        if owner != device && !self.devices[device].peers.contains(&owner) {
            let place = self.records[id].place(id, 0);
            let text = format!("{operation} uses {place}: device {device} has no peer access");
            self.report(codes::ILLEGAL_ADDRESS, text);
        }
    }

    /// Compares an access with all earlier ones, then notes it.
    fn check_access(&mut self, operation: &OpRef, id: usize, write: bool, ranges: Ranges) {
        if ranges.is_empty() {
            return;
        }
        let mut found = Vec::new();
        let record = &self.records[id];
        if let Some(born) = record.born.as_ref().filter(|born| !born.before(operation)) {
            let place = record.place(id, ranges.first());
            found.push(format!(
                "use before allocation: {place} by {operation}, which nothing orders after {born}"
            ));
        }
        if let Life::Freed(by) = &record.life
            && !operation.before(by)
        {
            let place = record.place(id, ranges.first());
            found.push(format!(
                "freed while in use: {place} by {by}, which nothing orders after {operation}"
            ));
        }
        let verb = |write| if write { "written" } else { "read" };
        for (past, (start, end)) in record.races(operation, write, &ranges) {
            let other = &past.operation;
            let pair = [
                other.stream as u64,
                other.number,
                operation.stream as u64,
                operation.number,
            ];
            if self.reported.insert(pair) {
                found.push(format!(
                    "data race: {} ({} bytes) {} by {other} and {} by {operation}; no event or synchronisation orders them",
                    record.place(id, start),
                    end - start,
                    verb(past.write),
                    verb(write),
                ));
            }
        }
        for text in found {
            self.report(codes::UNKNOWN, text);
        }
        self.forget_known(operation, id);
        self.records[id].note(operation, write, ranges);
    }

    /// When nothing else is queued, an access that the host knows to be complete is before all that will be queued.
    fn forget_known(&mut self, operation: &OpRef, id: usize) {
        let mine = &self.streams[operation.stream];
        let mut streams = self.streams.iter();
        let alone = mine.issued == operation.number
            && streams.all(|stream| stream.is_idle() || std::ptr::eq(stream, mine));
        if alone && !self.records[id].history.is_empty() {
            let mut history = std::mem::take(&mut self.records[id].history);
            history.retain(|past| !knows(&self.host, &past.operation));
            self.records[id].history = history;
        }
    }

    /// Frees an allocation, which all its users must be before.
    fn free(&mut self, heap: &Heap, operation: &OpRef, id: usize) {
        let users = self.records[id].users_not_before(operation);
        if !users.is_empty() {
            let place = self.records[id].place(id, 0);
            let users = users.join(", ");
            let text = format!(
                "freed while in use: {place} by {operation}, which nothing orders after {users}"
            );
            self.report(codes::UNKNOWN, text);
        }
        let born = self.records[id].born.as_ref();
        if let Some(born) = born.filter(|born| !born.before(operation)) {
            let place = self.records[id].place(id, 0);
            let text = format!(
                "unordered free: {place} by {operation}, which nothing orders after {born}"
            );
            self.report(codes::UNKNOWN, text);
        }
        let record = &mut self.records[id];
        record.history.clear();
        record.life = Life::Freed(operation.clone());
        heap.free(record.base);
    }
}
