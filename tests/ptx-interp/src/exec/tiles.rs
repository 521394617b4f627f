//! What the asynchronous unit does: copies of tiles and of bytes.

use crate::exec::block::Block;
use crate::memory::faulted;
use crate::report::{Finding, Step, problem};
use crate::tensor_map::TensorMap;

/// An operation that takes effect some time after it was issued.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The thread that issued it.
    pub(super) thread: usize,
    pub(super) kind: TaskKind,
}

#[derive(Clone, Debug)]
pub(super) enum TaskKind {
    Load {
        shared: u64,
        from: Source,
        mbarrier: u64,
        agent: usize,
        clock: u32,
    },
    Store {
        shared: u64,
        to: Source,
        number: u32,
    },
    ArriveAfterCopies {
        mbarrier: u64,
        last: u32,
    },
}

/// The side of a bulk copy that lies in global memory.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Bytes { global: u64, size: usize },
    Tile { map: Box<TensorMap>, at: Vec<i32> },
}

impl Source {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Bytes { size, .. } => *size,
            Self::Tile { map, .. } => map.tile_bytes(),
        }
    }

    /// The rows of a copy, in the order of shared memory.
    pub(super) fn rows(&self) -> Vec<Row> {
        match self {
            Self::Bytes { global, size } => vec![Row {
                global: *global,
                before: 0,
                inside: *size,
                size: *size,
            }],
            Self::Tile { map, at } => tile_rows(map, at),
        }
    }

    /// Where a byte of the copy lies in shared memory.
    pub(super) fn place(&self, address: u64) -> u64 {
        match self {
            Self::Bytes { .. } => address,
            Self::Tile { map, .. } => map.swizzle.place(address),
        }
    }
}

/// Contiguous bytes in both memories: `before` bytes outside of the tensor, `inside` of it, and the rest outside again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The address of the first byte inside.
    pub(super) global: u64,
    pub(super) before: usize,
    pub(super) inside: usize,
    pub(super) size: usize,
}

fn tile_rows(map: &TensorMap, at: &[i32]) -> Vec<Row> {
    let outer: usize = map.tile[1..].iter().map(|n| *n as usize).product();
    let size = map.tile[0] as usize * map.element;
    let (start, width, length) = (i64::from(at[0]), i64::from(map.tile[0]), map.dims[0] as i64);
    let first = start.clamp(0, length);
    let inside = (start + width).clamp(0, length) - first;
    (0..outer)
        .map(|mut index| {
            let mut global = map.address.wrapping_add(first as u64 * map.element as u64);
            let mut exists = inside > 0;
            let outer = map.dims.iter().zip(&map.tile).zip(at).skip(1);
            for (((dim, count), start), stride) in outer.zip(&map.strides) {
                let count = *count as usize;
                let coordinate = i64::from(*start) + (index % count) as i64;
                index /= count;
                exists &= (0..*dim as i64).contains(&coordinate);
                global = global.wrapping_add((coordinate as u64).wrapping_mul(*stride));
            }
            if !exists {
                return Row {
                    global: 0,
                    before: size,
                    inside: 0,
                    size,
                };
            }
            let before = (first - start) as usize * map.element;
            Row {
                global,
                before,
                inside: inside as usize * map.element,
                size,
            }
        })
        .collect()
}

impl Block<'_> {
    /// Lets an operation take effect.
    pub(super) fn run_task(&mut self, task: Task) -> Step<()> {
        self.changes += 1;
        match task.kind {
            TaskKind::Load {
                shared,
                from,
                mbarrier,
                agent,
                clock,
            } => {
                self.load_tile(shared, &from)?;
                self.copy_done(mbarrier, from.size(), (agent, clock))
            }
            TaskKind::Store { shared, to, .. } => self.store_tile(shared, &to),
            TaskKind::ArriveAfterCopies { mbarrier, last } => {
                self.arrive_after_copies(task.thread, mbarrier, last)
            }
        }
    }

    fn load_tile(&mut self, shared: u64, from: &Source) -> Step<()> {
        let mut at = shared;
        let mut bytes = Vec::new();
        for row in from.rows() {
            bytes.clear();
            bytes.resize(row.size, 0);
            if row.inside > 0 {
                faulted(
                    self.memory
                        .read(row.global, &mut bytes[row.before..row.before + row.inside]),
                )?;
            }
            for piece in bytes.chunks(16) {
                self.shared.write(from.place(at), piece)?;
                at += piece.len() as u64;
            }
        }
        Ok(())
    }

    fn store_tile(&mut self, shared: u64, to: &Source) -> Step<()> {
        let mut at = shared;
        let mut bytes = Vec::new();
        for row in to.rows() {
            bytes.clear();
            for piece in 0..row.size.div_ceil(16) {
                let size = (row.size - piece * 16).min(16);
                bytes.extend_from_slice(self.shared.read(to.place(at), size)?);
                at += size as u64;
            }
            if row.inside > 0 {
                faulted(
                    self.memory
                        .write(row.global, &bytes[row.before..row.before + row.inside]),
                )?;
            }
        }
        Ok(())
    }

    /// Lets the next operation take effect that has not; false if there is none.
    pub(super) fn run_next_task(&mut self, index: usize) -> Step<bool> {
        match self.tasks.remove(index) {
            Some(task) => {
                let lane = task.thread % 32;
                crate::report::at_lane(lane, self.run_task(task))?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Reads the descriptor that a thread names.
    pub(super) fn tensor_map(&mut self, address: u64) -> Step<TensorMap> {
        if !address.is_multiple_of(64) {
            return problem(
                Finding::Misaligned,
                format!("the tensor map at {address:#x} does not lie at a multiple of 64"),
            );
        }
        let mut bytes = [0; 128];
        self.load_generic(address, &mut bytes)?;
        TensorMap::decode(&bytes).or_else(|error| problem(Finding::Operand, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_map::Swizzle;

    #[test]
    fn rows_are_cut_at_the_edges_of_the_tensor() {
        let map = TensorMap {
            address: 0x1000,
            element: 2,
            dims: vec![10, 3],
            strides: vec![32],
            tile: vec![8, 2],
            swizzle: Swizzle::None,
        };
        let row = |global, before, inside| Row {
            global,
            before,
            inside,
            size: 16,
        };
        assert_eq!(
            tile_rows(&map, &[0, 0]),
            [row(0x1000, 0, 16), row(0x1020, 0, 16)]
        );
        assert_eq!(tile_rows(&map, &[8, 2]), [row(0x1050, 0, 4), row(0, 16, 0)]);
        assert_eq!(
            tile_rows(&map, &[-2, -1]),
            [row(0, 16, 0), row(0x1000, 4, 12)]
        );
        assert_eq!(tile_rows(&map, &[16, 0]), [row(0, 16, 0), row(0, 16, 0)]);
    }
}
