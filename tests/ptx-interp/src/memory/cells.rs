//! The last accesses to bytes that are always accessed together.

/// Who accesses memory, and what it has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accessor<'c> {
    pub(crate) agent: usize,
    pub(crate) clock: u32,
    /// The number of the block in its grid.
    pub(crate) block: u32,
    /// What the thread that issued the access has seen, and behind it what the threads after it have.
    pub(crate) seen: &'c [u32],
    /// The agents of `seen`, for each thread.
    pub(crate) agents: usize,
    /// Threads that read the same bytes at the same clock: bit i is the thread `agent + i`. All belong to a group of 32.
    pub(crate) others: u32,
    /// What every thread of the block has seen; nothing beyond its end.
    pub(crate) common: &'c [u32],
    /// The least entry of `common` for each group of 32 agents.
    pub(crate) floors: &'c [u32],
    /// Whether the access does not race with others of its kind.
    pub(crate) atomic: bool,
}

impl Accessor<'_> {
    fn has_seen(&self, block: u32, agent: usize, clock: u32) -> bool {
        if block != self.block {
            return false;
        }
        if self.common.get(agent).is_some_and(|seen| clock <= *seen) {
            return true;
        }
        let mut threads = self.others | 1;
        while threads != 0 {
            let row = threads.trailing_zeros() as usize * self.agents;
            if clock > self.seen[row + agent] {
                return false;
            }
            threads &= threads - 1;
        }
        true
    }
}

/// An earlier access that nothing orders before the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) agent: usize,
    pub(crate) block: u32,
    pub(crate) wrote: bool,
}

/// Up to 32 agents that read at the same clock.
#[derive(Clone, Copy, Debug)]
struct Readers {
    clock: u32,
    mask: u32,
    /// The agents `32 group..32 group + 32`, each one bit of the mask.
    group: u16,
}

impl Readers {
    fn first(&self) -> usize {
        usize::from(self.group) * 32 + self.mask.trailing_zeros() as usize
    }

    /// The first of the agents whose read the accessor has not seen. Both are of the same block.
    fn unseen(&self, by: &Accessor<'_>) -> Option<usize> {
        let floor = by.floors.get(usize::from(self.group));
        if floor.is_some_and(|seen| self.clock <= *seen) {
            return None;
        }
        let start = usize::from(self.group) * 32;
        let mut mask = self.mask;
        while mask != 0 {
            let agent = start + mask.trailing_zeros() as usize;
            if !by.has_seen(by.block, agent, self.clock) {
                return Some(agent);
            }
            mask &= mask - 1;
        }
        None
    }
}

/// The readers of one block. Most cells have few.
#[derive(Clone, Debug, Default)]
enum Reads {
    #[default]
    None,
    One(Readers),
    #[expect(
        clippy::box_collection,
        reason = "a cell is small, since there are many"
    )]
    Many(Box<Vec<Readers>>),
}

impl Reads {
    fn all(&mut self) -> &mut [Readers] {
        match self {
            Self::None => &mut [],
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(all) => all,
        }
    }

    /// Adds readers. Drops those that the new one makes superfluous: a later write that has seen its read has seen all that
    /// its read has seen. The eldest ones become superfluous first.
    fn push(&mut self, new: Readers, by: &Accessor<'_>) {
        match self {
            Self::None => *self = Self::One(new),
            Self::One(one) if one.unseen(by).is_none() => *one = new,
            Self::One(one) => *self = Self::Many(Box::new(vec![*one, new])),
            Self::Many(all) => {
                if all.first().is_some_and(|r| r.unseen(by).is_none()) {
                    all.retain(|r| r.unseen(by).is_some());
                }
                all.push(new);
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Many(all) => all.clear(),
            few => *few = Self::None,
        }
    }
}

/// An agent that does not exist.
const NOBODY: u16 = u16::MAX;

/// The last accesses to some bytes. It is small, since there are many.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// The readers of `reading_block`.
    reads: Reads,
    reading_block: u32,
    /// One reader of an earlier block is enough: blocks run one after another, and nothing orders them.
    foreign_block: u32,
    writing_block: u32,
    writer_clock: u32,
    foreign_reader: u16,
    writer: u16,
    writer_atomic: bool,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            reads: Reads::None,
            reading_block: 0,
            foreign_block: 0,
            writing_block: 0,
            writer_clock: 0,
            foreign_reader: NOBODY,
            writer: NOBODY,
            writer_atomic: false,
        }
    }
}

impl Cell {
    /// The agent of the last write, and its clock.
    pub(super) fn writer(&self) -> Option<(usize, u32)> {
        (self.writer != NOBODY).then_some((self.writer.into(), self.writer_clock))
    }

    #[inline]
    fn check_writer(&self, by: &Accessor<'_>) -> Result<(), Conflict> {
        if self.writer == NOBODY || self.writer_atomic && by.atomic {
            return Ok(());
        }
        let (agent, block) = (self.writer.into(), self.writing_block);
        if by.has_seen(block, agent, self.writer_clock) {
            return Ok(());
        }
        Err(Conflict {
            agent,
            block,
            wrote: true,
        })
    }

    /// The readers become those of another block, which has not read yet.
    #[cold]
    fn begin_block(&mut self, block: u32) {
        if let Some(reader) = self.reads.all().first() {
            (self.foreign_reader, self.foreign_block) = (reader.first() as u16, self.reading_block);
        }
        self.reads = Reads::None;
        self.reading_block = block;
    }

    #[inline]
    pub(super) fn read(&mut self, by: &Accessor<'_>) -> Result<(), Conflict> {
        self.check_writer(by)?;
        if by.atomic {
            return Ok(());
        }
        if self.reading_block != by.block {
            self.begin_block(by.block);
        }
        let new = Readers {
            clock: by.clock,
            mask: (by.others | 1) << (by.agent % 32),
            group: (by.agent / 32) as u16,
        };
        let same = |r: &&mut Readers| r.group == new.group && r.clock == new.clock;
        match self.reads.all().iter_mut().rev().find(same) {
            Some(found) => found.mask |= new.mask,
            None => self.reads.push(new, by),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn write(&mut self, by: &Accessor<'_>) -> Result<(), Conflict> {
        self.check_writer(by)?;
        if self.reading_block != by.block {
            self.begin_block(by.block);
        }
        let conflict = |agent, block| Conflict {
            agent,
            block,
            wrote: false,
        };
        if self.foreign_reader != NOBODY {
            return Err(conflict(self.foreign_reader.into(), self.foreign_block));
        }
        for readers in self.reads.all() {
            if let Some(agent) = readers.unseen(by) {
                return Err(conflict(agent, by.block));
            }
        }
        self.reads.clear();
        self.writer = by.agent as u16;
        self.writer_clock = by.clock;
        self.writing_block = by.block;
        self.writer_atomic = by.atomic;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_small() {
        assert_eq!(size_of::<Cell>(), 40);
    }
}
