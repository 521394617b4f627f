//! What is known of each allocation: its life, and which operations used its bytes.

use crate::clock::OpRef;
use crate::ranges::Ranges;

/// An access of an operation that has run.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) operation: OpRef,
    pub(crate) write: bool,
    pub(crate) ranges: Ranges,
}

#[derive(Debug)]
pub(crate) enum Life {
    Live,
    /// The program called for the free, which has not run yet.
    FreeQueued,
    Freed(OpRef),
}

/// Who made an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The program, which must free it.
    Program,
    /// `cuModuleLoadData`, for a variable.
    Variable,
}

/// An allocation of a device, or pinned memory of the host.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) base: u64,
    pub(crate) size: usize,
    /// `None` for memory of the host.
    pub(crate) device: Option<usize>,
    pub(crate) origin: Origin,
    /// The operation of `cuMemAllocAsync`. Memory of `cuMemAlloc` may be used by everybody at once.
    pub(crate) born: Option<OpRef>,
    pub(crate) life: Life,
    pub(crate) history: Vec<Past>,
}

impl Record {
    pub(crate) fn new(base: u64, size: usize, device: Option<usize>) -> Self {
        Self {
            base,
            size,
            device,
            origin: Origin::Program,
            born: None,
            life: Life::Live,
            history: Vec::new(),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.life, Life::Live)
    }

    /// Names a byte.
    pub(crate) fn place(&self, id: usize, offset: usize) -> String {
        let owner = match self.device {
            Some(device) => format!("on device {device}"),
            None => "in pinned memory of the host".to_owned(),
        };
        format!(
            "{:#x} (byte {offset} of allocation #{id} of {} bytes {owner})",
            self.base + offset as u64,
            self.size
        )
    }

    /// The earlier accesses that nothing orders before or after an operation which used some bytes: for each the first
    /// range that both used.
    pub(crate) fn races<'r>(
        &'r self,
        operation: &'r OpRef,
        write: bool,
        ranges: &'r Ranges,
    ) -> impl Iterator<Item = (&'r Past, (usize, usize))> {
        self.history
            .iter()
            .filter(move |past| write || past.write)
            .filter(move |past| {
                !past.operation.before(operation) && !operation.before(&past.operation)
            })
            .filter_map(move |past| Some((past, past.ranges.overlap(ranges)?)))
    }

    /// Notes an access. Bytes of earlier accesses are forgotten where this one makes them superfluous: an operation that
    /// races with the earlier one races with this one too.
    pub(crate) fn note(&mut self, operation: &OpRef, write: bool, ranges: Ranges) {
        for past in &mut self.history {
            if (write || !past.write) && past.operation.before(operation) {
                past.ranges.subtract(&ranges);
            }
        }
        self.history.retain(|past| !past.ranges.is_empty());
        self.history.push(Past {
            operation: operation.clone(),
            write,
            ranges,
        });
    }

    /// The operations that used the memory and are not complete before another one.
    pub(crate) fn users_not_before(&self, operation: &OpRef) -> Vec<String> {
        let users = self.history.iter().map(|past| &past.operation);
        let mut users: Vec<String> = users
            .filter(|user| !user.before(operation))
            .map(ToString::to_string)
            .collect();
        users.dedup();
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Operation;

    fn operation(stream: usize, number: u64, clock: &[u64]) -> OpRef {
        let operation = Operation::new(stream, number, "copy".into(), vec![]);
        operation.begin(clock.to_vec());
        operation
    }

    #[test]
    fn only_unordered_accesses_race() {
        let mut record = Record::new(0x1000, 64, Some(0));
        let bytes = Ranges::single(0, 16);
        record.note(&operation(0, 1, &[1]), true, bytes.clone());
        let ordered = operation(1, 1, &[1, 1]);
        assert_eq!(record.races(&ordered, true, &bytes).count(), 0);
        let other = operation(2, 1, &[0, 0, 1]);
        assert_eq!(record.races(&other, false, &bytes).count(), 1);
        let beside = Ranges::single(16, 16);
        assert_eq!(record.races(&other, true, &beside).count(), 0);
    }

    #[test]
    fn reads_do_not_race_and_superfluous_accesses_go() {
        let mut record = Record::new(0x1000, 64, Some(0));
        let bytes = Ranges::single(0, 16);
        record.note(&operation(0, 1, &[1]), false, bytes.clone());
        let reader = operation(1, 1, &[0, 1]);
        assert_eq!(record.races(&reader, false, &bytes).count(), 0);
        record.note(&reader, false, bytes.clone());
        assert_eq!(record.history.len(), 2);
        record.note(&operation(2, 1, &[1, 1, 1]), true, bytes);
        assert_eq!(record.history.len(), 1);
    }
}
