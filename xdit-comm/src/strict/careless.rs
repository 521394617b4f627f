//! Groups that break the posting rule, to test that the strict backend detects it.

use crate::{Backend, Call, Group, Result, Ticket};
use std::time::Duration;
use xdit_kernels::{Device, Tensor};

/// Returns a group that starts each call of a batch in its own batch.
pub fn unbatched(group: Group) -> Group {
    Group::new(Box::new(Careless {
        group,
        splits: true,
        ahead: false,
    }))
}

/// Returns a group that claims to receive ahead.
pub fn posting_ahead(group: Group) -> Group {
    Group::new(Box::new(Careless {
        group,
        splits: false,
        ahead: true,
    }))
}

#[derive(Debug)]
struct Careless {
    group: Group,
    /// Whether batches are taken apart.
    splits: bool,
    ahead: bool,
}

impl Backend for Careless {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn world_size(&self) -> usize {
        self.group.world_size()
    }

    fn device(&self) -> Option<&Device> {
        self.group.device()
    }

    fn receives_ahead(&self) -> bool {
        self.ahead || self.group.receives_ahead()
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        let backend = self.group.backend();
        if !self.splits {
            return backend.start(batch);
        }
        let started = batch.into_iter().map(|call| backend.start(vec![call]));
        Ok(Box::new(OneByOne(started.collect::<Result<_>>()?)))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        self.group.backend().start_control(bytes, deadline)
    }

    fn fail(&self, reason: &str) {
        self.group.backend().fail(reason);
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Self {
            group: self.group.split(color, key)?,
            splits: self.splits,
            ahead: self.ahead,
        }))
    }

    fn progress(&self) -> Result<()> {
        self.group.progress()
    }
}

#[derive(Debug)]
struct OneByOne(Vec<Box<dyn Ticket>>);

impl Ticket for OneByOne {
    fn wait(self: Box<Self>) -> Result<Vec<Tensor>> {
        let arrived = self.0.into_iter().map(Ticket::wait);
        Ok(arrived.collect::<Result<Vec<_>>>()?.concat())
    }
}
