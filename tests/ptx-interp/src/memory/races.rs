//! The last accesses to each byte of a memory, and whether something orders the next one after them.
//!
//! Memory is divided into lines of 16 bytes. A line is one cell as long as all accesses cover it whole; else it has a cell for
//! each word of four bytes, or for each byte. So copies of whole lines cost one check, and the result is exact to the byte.

use std::collections::HashMap;

/// Who accesses memory, and what it has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accessor<'c> {
    pub(crate) agent: usize,
    pub(crate) clock: u32,
    /// The number of the block in its grid.
    pub(crate) block: u32,
    /// What the thread that issued the access has seen.
    pub(crate) seen: &'c [u32],
    /// Whether the access does not race with others of its kind.
    pub(crate) atomic: bool,
}

impl Accessor<'_> {
    fn has_seen(&self, block: u32, agent: usize, clock: u32) -> bool {
        block == self.block && clock <= self.seen[agent]
    }
}

/// An earlier access that nothing orders before the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) agent: usize,
    pub(crate) block: u32,
    pub(crate) wrote: bool,
}

#[derive(Clone, Copy, Debug)]
struct Writer {
    agent: u32,
    clock: u32,
    block: u32,
    atomic: bool,
}

/// Up to 32 agents that read at the same clock.
#[derive(Clone, Copy, Debug)]
struct Readers {
    block: u32,
    /// The agents `32 group..32 group + 32`, each one bit of the mask.
    group: u32,
    mask: u32,
    clock: u32,
}

impl Readers {
    /// The first of the agents whose read the accessor has not seen.
    fn unseen(&self, by: &Accessor<'_>) -> Option<usize> {
        let mut mask = self.mask;
        while mask != 0 {
            let agent = self.group as usize * 32 + mask.trailing_zeros() as usize;
            if !by.has_seen(self.block, agent, self.clock) {
                return Some(agent);
            }
            mask &= mask - 1;
        }
        None
    }
}

#[derive(Clone, Debug, Default)]
struct Cell {
    writer: Option<Writer>,
    readers: Vec<Readers>,
}

/// So many records of readers are kept before those are dropped that a later one makes superfluous.
const READERS: usize = 8;

impl Cell {
    fn check_writer(&self, by: &Accessor<'_>) -> Result<(), Conflict> {
        let Some(w) = self.writer else {
            return Ok(());
        };
        if w.atomic && by.atomic || by.has_seen(w.block, w.agent as usize, w.clock) {
            return Ok(());
        }
        Err(Conflict {
            agent: w.agent as usize,
            block: w.block,
            wrote: true,
        })
    }

    fn read(&mut self, by: &Accessor<'_>) -> Result<(), Conflict> {
        self.check_writer(by)?;
        if by.atomic {
            return Ok(());
        }
        let (group, bit) = ((by.agent / 32) as u32, 1 << (by.agent % 32));
        let same =
            |r: &&mut Readers| r.block == by.block && r.group == group && r.clock == by.clock;
        if let Some(found) = self.readers.iter_mut().rev().find(same) {
            found.mask |= bit;
            return Ok(());
        }
        if self.readers.len() >= READERS {
            // A later write that has seen this read has seen all that this read has seen. Of other blocks, one is enough.
            let mut foreign = false;
            self.readers.retain(|r| {
                if r.block != by.block {
                    return !std::mem::replace(&mut foreign, true);
                }
                r.unseen(by).is_some()
            });
        }
        self.readers.push(Readers {
            block: by.block,
            group,
            mask: bit,
            clock: by.clock,
        });
        Ok(())
    }

    fn write(&mut self, by: &Accessor<'_>) -> Result<(), Conflict> {
        self.check_writer(by)?;
        for readers in &self.readers {
            if let Some(agent) = readers.unseen(by) {
                return Err(Conflict {
                    agent,
                    block: readers.block,
                    wrote: false,
                });
            }
        }
        self.readers.clear();
        self.writer = Some(Writer {
            agent: by.agent as u32,
            clock: by.clock,
            block: by.block,
            atomic: by.atomic,
        });
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Line {
    Whole(Cell),
    Words(Box<[Cell; 4]>),
    Bytes(Box<[Cell; 16]>),
}

impl Line {
    /// Divides the line so that no cell is larger than `size`.
    fn refine(&mut self, size: usize) {
        let refined = match self {
            Self::Whole(cell) if size < 4 => {
                Self::Bytes(Box::new(std::array::from_fn(|_| cell.clone())))
            }
            Self::Whole(cell) if size < 16 => {
                Self::Words(Box::new(std::array::from_fn(|_| cell.clone())))
            }
            Self::Words(cells) if size < 4 => {
                Self::Bytes(Box::new(std::array::from_fn(|i| cells[i / 4].clone())))
            }
            _ => return,
        };
        *self = refined;
    }

    /// The cells of some bytes.
    fn cells(&mut self, start: usize, end: usize) -> &mut [Cell] {
        let size = if start == 0 && end == 16 {
            16
        } else if start.is_multiple_of(4) && end.is_multiple_of(4) {
            4
        } else {
            1
        };
        self.refine(size);
        match self {
            Self::Whole(cell) => std::slice::from_mut(cell),
            Self::Words(cells) => &mut cells[start / 4..end.div_ceil(4)],
            Self::Bytes(cells) => &mut cells[start..end],
        }
    }
}

const LINES: usize = 128;

/// The last accesses to a memory.
#[derive(Debug, Default)]
pub(crate) struct RaceMap {
    pages: Vec<Vec<Line>>,
    index: HashMap<u64, usize>,
    recent: Option<(u64, usize)>,
}

impl RaceMap {
    fn line(&mut self, number: u64) -> &mut Line {
        let page = number / LINES as u64;
        let at = match self.recent {
            Some((recent, at)) if recent == page => at,
            _ => {
                let pages = &mut self.pages;
                let at = *self.index.entry(page).or_insert_with(|| {
                    pages.push(vec![Line::Whole(Cell::default()); LINES]);
                    pages.len() - 1
                });
                self.recent = Some((page, at));
                at
            }
        };
        &mut self.pages[at][number as usize % LINES]
    }

    /// The agent of a last write to some bytes that fulfils a condition on agent and clock.
    pub(crate) fn last_writer(
        &mut self,
        address: u64,
        size: usize,
        which: impl Fn(usize, u32) -> bool,
    ) -> Option<usize> {
        let mut at = address;
        let end = address.saturating_add(size as u64);
        while at < end {
            let number = at / 16;
            let stop = end.min((number * 16).saturating_add(16));
            let cells: &[Cell] = match self.line(number) {
                Line::Whole(cell) => std::slice::from_ref(cell),
                Line::Words(cells) => cells.as_slice(),
                Line::Bytes(cells) => cells.as_slice(),
            };
            let size = 16 / cells.len() as u64;
            let touched = |i: usize| {
                let start = number * 16 + i as u64 * size;
                start < stop && start + size > at
            };
            let mut writers = cells
                .iter()
                .enumerate()
                .filter(|(i, _)| touched(*i))
                .filter_map(|(_, cell)| cell.writer);
            if let Some(found) = writers.find(|w| which(w.agent as usize, w.clock)) {
                return Some(found.agent as usize);
            }
            at = stop;
        }
        None
    }

    /// Notes an access, or returns one that races with it.
    pub(crate) fn access(
        &mut self,
        by: &Accessor<'_>,
        address: u64,
        size: usize,
        writes: bool,
    ) -> Result<(), Conflict> {
        let mut at = address;
        let end = address.saturating_add(size as u64);
        while at < end {
            let number = at / 16;
            let stop = end.min((number * 16).saturating_add(16));
            let line = self.line(number);
            for cell in line.cells((at % 16) as usize, (stop - number * 16) as usize) {
                if writes {
                    cell.write(by)?
                } else {
                    cell.read(by)?
                }
            }
            if writes && stop - at == 16 && !matches!(line, Line::Whole(_)) {
                let mut cell = Cell::default();
                cell.write(by)?;
                *line = Line::Whole(cell);
            }
            at = stop;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(agent: usize, clock: u32, seen: &[u32]) -> Accessor<'_> {
        Accessor {
            agent,
            clock,
            block: 0,
            seen,
            atomic: false,
        }
    }

    #[test]
    fn only_what_is_seen_may_be_overwritten() {
        let mut map = RaceMap::default();
        map.access(&by(0, 1, &[1, 0]), 32, 16, true).unwrap();
        let conflict = Conflict {
            agent: 0,
            block: 0,
            wrote: true,
        };
        assert_eq!(map.access(&by(1, 1, &[0, 1]), 40, 1, false), Err(conflict));
        map.access(&by(1, 1, &[1, 1]), 40, 1, false).unwrap();
        map.access(&by(0, 1, &[1, 0]), 41, 1, true).unwrap();
        let read = Conflict {
            agent: 1,
            block: 0,
            wrote: false,
        };
        assert_eq!(map.access(&by(0, 1, &[1, 0]), 32, 16, true), Err(read));
        map.access(&by(0, 2, &[2, 1]), 32, 16, true).unwrap();
    }

    #[test]
    fn blocks_are_never_ordered() {
        let mut map = RaceMap::default();
        map.access(&by(0, 1, &[1]), 0, 4, true).unwrap();
        let other = Accessor {
            block: 1,
            ..by(0, 5, &[5])
        };
        assert!(map.access(&other, 0, 4, false).is_err());
        map.access(&other, 4, 4, false).unwrap();
    }

    #[test]
    fn atomics_race_only_with_others() {
        let mut map = RaceMap::default();
        let atomic = |agent, block, seen| Accessor {
            atomic: true,
            block,
            ..by(agent, 1, seen)
        };
        map.access(&atomic(0, 0, &[1, 0]), 0, 4, true).unwrap();
        map.access(&atomic(1, 1, &[0, 1]), 0, 4, true).unwrap();
        assert!(map.access(&by(0, 1, &[1, 0]), 0, 4, false).is_err());
    }

    #[test]
    fn many_readers_are_all_remembered() {
        let mut map = RaceMap::default();
        let width = 64 * 32;
        for reader in 0..64 {
            let mut seen = vec![0; width];
            seen[reader * 32] = 1;
            map.access(&by(reader * 32, 1, &seen), 0, 16, false)
                .unwrap();
        }
        for missing in 0..64 {
            let mut seen = vec![1; width];
            seen[missing * 32] = 0;
            assert!(
                map.access(&by(1, 1, &seen), 0, 16, true).is_err(),
                "reader {missing}"
            );
        }
    }
}
