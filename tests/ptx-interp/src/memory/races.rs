//! The last accesses to each byte of a memory, and whether something orders the next one after them.
//!
//! Memory is divided into lines of 16 bytes. A line is one cell as long as all accesses cover it whole; else it has a cell for
//! each word of four bytes, each half of a word, or each byte. So copies of whole lines cost one check, and the result is exact
//! to the byte.

use std::collections::HashMap;

use crate::memory::cells::{Accessor, Cell, Conflict};

#[derive(Clone, Debug)]
enum Line {
    Whole(Cell),
    Words(Box<[Cell; 4]>),
    Halves(Box<[Cell; 8]>),
    Bytes(Box<[Cell; 16]>),
}

impl Line {
    fn parts(&mut self) -> &mut [Cell] {
        match self {
            Self::Whole(cell) => std::slice::from_mut(cell),
            Self::Words(cells) => cells.as_mut_slice(),
            Self::Halves(cells) => cells.as_mut_slice(),
            Self::Bytes(cells) => cells.as_mut_slice(),
        }
    }

    /// Divides the line into so many cells.
    fn divide<const N: usize>(&mut self) -> Box<[Cell; N]> {
        let old = self.parts();
        Box::new(std::array::from_fn(|i| old[i * old.len() / N].clone()))
    }

    /// The cells of some bytes.
    #[inline]
    fn cells(&mut self, start: usize, end: usize) -> &mut [Cell] {
        let parts = match start | end {
            16 => 1,
            ends if ends.is_multiple_of(4) => 4,
            ends if ends.is_multiple_of(2) => 8,
            _ => 16,
        };
        if self.parts().len() < parts {
            *self = match parts {
                4 => Self::Words(self.divide()),
                8 => Self::Halves(self.divide()),
                _ => Self::Bytes(self.divide()),
            };
        }
        let cells = self.parts();
        let shift = 4 - cells.len().trailing_zeros();
        &mut cells[start >> shift..end >> shift]
    }
}

const LINES: usize = 128;

/// Pages that were used last, by the low bits of their number.
const RECENT: usize = 64;

/// The last accesses to a memory.
#[derive(Debug)]
pub(crate) struct RaceMap {
    pages: Vec<Vec<Line>>,
    index: HashMap<u64, usize>,
    recent: [(u64, usize); RECENT],
}

impl Default for RaceMap {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            index: HashMap::new(),
            recent: [(u64::MAX, 0); RECENT],
        }
    }
}

impl RaceMap {
    #[inline]
    fn line(&mut self, number: u64) -> &mut Line {
        let page = number / LINES as u64;
        let slot = page as usize % RECENT;
        if self.recent[slot].0 != page {
            self.recent[slot] = (page, self.page(page));
        }
        let at = self.recent[slot].1;
        &mut self.pages[at][number as usize % LINES]
    }

    fn page(&mut self, number: u64) -> usize {
        let pages = &mut self.pages;
        *self.index.entry(number).or_insert_with(|| {
            pages.push(vec![Line::Whole(Cell::default()); LINES]);
            pages.len() - 1
        })
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
            let cells = self.line(number).parts();
            let size = 16 / cells.len() as u64;
            let touched = |i: usize| {
                let start = number * 16 + i as u64 * size;
                start < stop && start + size > at
            };
            let mut writers = cells
                .iter()
                .enumerate()
                .filter(|(i, _)| touched(*i))
                .filter_map(|(_, cell)| cell.writer());
            if let Some((agent, _)) = writers.find(|(agent, clock)| which(*agent, *clock)) {
                return Some(agent);
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
            agents: seen.len(),
            others: 0,
            common: &[],
            floors: &[],
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
    #[test]
    fn threads_that_read_together_are_all_remembered() {
        // Rows of three threads; the first two have seen the write of thread 0.
        let rows = [1, 0, 0, 1, 1, 0, 0, 0, 1];
        let mut map = RaceMap::default();
        map.access(&by(0, 1, &rows[..3]), 0, 4, true).unwrap();
        let together = |others| Accessor {
            agents: 3,
            others,
            ..by(0, 1, &rows)
        };
        assert!(map.access(&together(0b110), 0, 4, false).is_err());
        map.access(&together(0b010), 0, 4, false).unwrap();
        let read = Conflict {
            agent: 1,
            block: 0,
            wrote: false,
        };
        assert_eq!(map.access(&by(2, 1, &[1, 0, 1]), 0, 4, true), Err(read));
        let common = Accessor {
            common: &[1, 1, 0],
            floors: &[0],
            ..by(2, 1, &[0, 0, 1])
        };
        map.access(&common, 0, 4, true).unwrap();
    }
}
