//! How kernels of a GPU walk over strided operands: `Walk` of `prelude.cuh`, which they take by value.

use super::launch::{KernelParam, LaunchShape};
use crate::{Error, Result, shape::MAX_NDIM};

/// Dims but the last.
const OUTER_DIMS: usize = MAX_NDIM - 1;

/// The most blocks of a grid in x.
const MOST_BLOCKS: usize = (1 << 31) - 1;

/// Threads of a block where each thread takes some elements on its own.
const THREADS: u32 = 256;

/// Operands of one shape, seen as rows along the last dim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct DeviceWalk<const N: usize> {
    /// Elements of a row.
    len: u64,
    rows: u32,
    ndim: u32,
    /// Outer dims, the innermost first, merged where every operand allows it.
    dims: [u32; OUTER_DIMS],
    unused: u32,
    strides: [[u64; OUTER_DIMS]; N],
}

// SAFETY: `#[repr(C)]` with the fields of `Walk` in prelude.cuh, none of which is an address. Without padding: the numbers of 32
// bits are eight.
unsafe impl<const N: usize> KernelParam for DeviceWalk<N> {}

impl<const N: usize> DeviceWalk<N> {
    /// Rows along the last dim, whose stride a kernel does not read here.
    ///
    /// # Errors
    /// If there are more rows than a kernel counts.
    pub(crate) fn rows(op: &'static str, shape: &[usize], strides: [&[usize]; N]) -> Result<Self> {
        let (&len, outer) = shape.split_last().unwrap_or((&1, &[]));
        let rows: usize = outer.iter().product();
        let too_many = || {
            let expected = "at most 2147483647 rows in an operation on a GPU";
            Error::shape(op, expected, shape)
        };
        if rows > MOST_BLOCKS {
            return Err(too_many());
        }
        let mut walk = Self {
            len: len as u64,
            rows: rows as u32,
            ndim: 0,
            dims: [1; OUTER_DIMS],
            unused: 0,
            strides: [[0; OUTER_DIMS]; N],
        };
        if rows == 0 {
            return Ok(walk);
        }
        // No size is above the number of rows, which fits.
        for (d, &n) in outer.iter().enumerate().rev().filter(|&(_, &n)| n != 1) {
            let at = walk.ndim as usize;
            let merges = at > 0
                && (0..N).all(|o| {
                    strides[o][d] as u64 == walk.strides[o][at - 1] * u64::from(walk.dims[at - 1])
                });
            if merges {
                walk.dims[at - 1] *= n as u32;
                continue;
            }
            walk.dims[at] = n as u32;
            for (to, from) in walk.strides.iter_mut().zip(strides) {
                to[at] = from[d] as u64;
            }
            walk.ndim += 1;
        }
        Ok(walk)
    }

    /// As [`rows`](Self::rows), but the innermost outer dim joins the row where it is adjacent in every operand: for operations that
    /// treat each element alike.
    ///
    /// # Errors
    /// As [`rows`](Self::rows)'.
    pub(crate) fn elements(
        op: &'static str,
        shape: &[usize],
        strides: [&[usize]; N],
    ) -> Result<Self> {
        let mut walk = Self::rows(op, shape, strides)?;
        if walk.ndim > 0 && walk.strides.iter().all(|of| of[0] == walk.len) {
            walk.len *= u64::from(walk.dims[0]);
            walk.rows /= walk.dims[0];
            walk.ndim -= 1;
            walk.dims.rotate_left(1);
            walk.dims[OUTER_DIMS - 1] = 1;
            for of in &mut walk.strides {
                of.rotate_left(1);
                of[OUTER_DIMS - 1] = 0;
            }
        }
        Ok(walk)
    }

    /// Elements of a row.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn row_count(&self) -> usize {
        self.rows as usize
    }

    /// Whether each row is whole vectors of so many elements, at multiples of a vector from the first element on.
    pub(crate) fn has_vectors(&self, vector: usize) -> bool {
        let whole = |n: u64| n.is_multiple_of(vector as u64);
        whole(self.len) && self.strides.iter().flatten().all(|&n| whole(n))
    }

    /// A thread for each `vector` elements of a row.
    ///
    /// # Errors
    /// If there are more than a grid has.
    pub(crate) fn threads(&self, op: &'static str, vector: usize) -> Result<LaunchShape> {
        let vectors = self.len().div_ceil(vector);
        let threads = vectors.checked_mul(self.row_count());
        // Kernels divide the number of a thread by the vectors of a row in 32 bits.
        let counted = threads.filter(|&n| self.rows <= 1 || u32::try_from(n).is_ok());
        let blocks = counted.map(|n| n.div_ceil(THREADS as usize));
        match blocks.filter(|&n| n <= MOST_BLOCKS) {
            Some(blocks) => Ok(LaunchShape::rows(blocks as u32, THREADS)),
            None => {
                let expected = "fewer elements in an operation on a GPU";
                Err(Error::shape(op, expected, [self.row_count(), self.len()]))
            }
        }
    }

    /// The threads of kernels that keep a row in registers, `kept` vectors of `vector` elements a thread: whole warps along a row
    /// in x, and four rows a block in y where one warp holds a row. `None` if a block does not hold one.
    pub(crate) fn held_rows(&self, vector: usize, kept: usize) -> Option<LaunchShape> {
        let warps = self.len().div_ceil(vector * kept * 32).max(1);
        (warps <= 32).then(|| self.row_blocks(warps as u32))
    }

    /// The threads of kernels that read rows several times, an element at a time.
    pub(crate) fn read_rows(&self) -> LaunchShape {
        self.row_blocks(self.len().div_ceil(4 * 32).clamp(1, 8) as u32)
    }

    fn row_blocks(&self, warps: u32) -> LaunchShape {
        let rows = if warps == 1 { 4 } else { 1 };
        LaunchShape {
            grid: [self.rows.div_ceil(rows), 1, 1],
            block: [32 * warps, rows, 1],
            shared_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_merge_where_every_operand_allows_it() {
        // x is contiguous, y has a longer dim 1.
        let walk = DeviceWalk::rows("t", &[2, 3, 4, 5], [&[60, 20, 5, 1], &[120, 20, 5, 1]]);
        let walk = walk.unwrap();
        assert_eq!((walk.rows, walk.len, walk.ndim), (24, 5, 2));
        assert_eq!(walk.dims[..2], [12, 2]);
        assert_eq!(
            (walk.strides[0][..2].to_vec(), walk.strides[1][..2].to_vec()),
            (vec![5, 60], vec![5, 120])
        );
        let joined = DeviceWalk::elements("t", &[2, 3, 4, 5], [&[60, 20, 5, 1], &[120, 20, 5, 1]]);
        let joined = joined.unwrap();
        assert_eq!(
            (joined.rows, joined.len, joined.ndim, joined.dims[0]),
            (2, 60, 1, 2)
        );
        assert_eq!((joined.strides[0][0], joined.strides[1][0]), (60, 120));
        let whole = DeviceWalk::elements("t", &[2, 3], [&[3, 1]]).unwrap();
        assert_eq!((whole.rows, whole.len, whole.ndim), (1, 6, 0));
        // A row that is repeated stays a row.
        let repeated = DeviceWalk::elements("t", &[2, 3], [&[3, 1], &[0, 1]]).unwrap();
        assert_eq!((repeated.rows, repeated.len), (2, 3));
        assert_eq!(DeviceWalk::rows("t", &[], [&[]]).unwrap().rows, 1);
        assert_eq!(DeviceWalk::rows("t", &[0, 4], [&[4, 1]]).unwrap().rows, 0);
        assert!(DeviceWalk::rows("t", &[1 << 31, 1], [&[1, 1]]).is_err());
    }

    #[test]
    fn launches_have_a_thread_for_each_vector_and_warps_for_each_row() {
        let walk = DeviceWalk::rows("t", &[5, 3072], [&[3072, 1]]).unwrap();
        assert!(walk.has_vectors(8) && !walk.has_vectors(2048));
        assert_eq!(walk.threads("t", 8).unwrap(), LaunchShape::rows(8, 256));
        let held = walk.held_rows(8, 2).unwrap();
        assert_eq!((held.grid, held.block), ([5, 1, 1], [192, 1, 1]));
        assert!(walk.held_rows(1, 2).is_none());
        assert_eq!(walk.read_rows().block, [256, 1, 1]);
        let narrow = DeviceWalk::rows("t", &[5, 64], [&[64, 1]]).unwrap();
        let held = narrow.held_rows(8, 2).unwrap();
        assert_eq!((held.grid, held.block), ([2, 1, 1], [32, 4, 1]));
        let huge = DeviceWalk::rows("t", &[1 << 20, 1 << 20], [&[1 << 20, 1]]).unwrap();
        assert!(huge.threads("t", 1).is_err());
        assert_eq!(size_of::<DeviceWalk<3>>(), 40 + 3 * 40);
    }
}
