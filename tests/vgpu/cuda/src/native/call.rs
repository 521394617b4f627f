//! The parameters and threads of a launch, as the native versions of kernels read them.

use ptx_interp::{Entry, Launch};

/// Dims of a walk.
const OUTER_DIMS: usize = 5;

/// A launch whose parameters are complete.
#[derive(Debug)]
pub(super) struct NativeCall<'l> {
    entry: &'l Entry,
    launch: &'l Launch<'l>,
}

/// The bytes of a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParamBytes<'l>(&'l [u8]);

impl ParamBytes<'_> {
    fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.0.get(at + i).copied().unwrap_or_default())
    }

    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }
}

/// `Operand` of prelude.cuh.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelRows {
    pub(super) address: u64,
    pub(super) stride: u64,
    /// 0: absent, 1: f32, 2: the type of the kernel's data.
    pub(super) kind: u32,
}

/// `Walk` of prelude.cuh.
#[derive(Debug)]
pub(super) struct RowWalk<const N: usize> {
    pub(super) len: u64,
    pub(super) rows: u32,
    dims: Vec<u32>,
    strides: [[u64; OUTER_DIMS]; N],
}

impl<'l> NativeCall<'l> {
    /// `None` where the interpreter would refuse the launch, or where its shape is none of a plain kernel's.
    pub(super) fn new(entry: &'l Entry, launch: &'l Launch<'l>) -> Option<Self> {
        let [blocks, y, z] = launch.grid;
        let [threads, rows, depth] = launch.block;
        let plain = y == 1 && z == 1 && depth == 1 && launch.shared_bytes == 0;
        let possible = blocks > 0 && threads > 0 && rows > 0 && threads.checked_mul(rows)? <= 1024;
        let complete = launch.params.len() == entry.param_bytes();
        (plain && possible && complete).then_some(Self { entry, launch })
    }

    /// Whether the kernel has so many parameters.
    pub(super) fn has_params(&self, count: usize) -> Option<()> {
        (self.entry.params().len() == count).then_some(())
    }

    pub(super) fn param(&self, index: usize) -> ParamBytes<'l> {
        let params = self.entry.params();
        let bytes = params.get(index).and_then(|param| {
            let end = param.offset + param.size;
            self.launch.params.get(param.offset..end)
        });
        ParamBytes(bytes.unwrap_or_default())
    }

    pub(super) fn u32(&self, index: usize) -> u32 {
        self.param(index).u32(0)
    }

    pub(super) fn u64(&self, index: usize) -> u64 {
        self.param(index).u64(0)
    }

    pub(super) fn f32(&self, index: usize) -> f32 {
        f32::from_bits(self.u32(index))
    }

    /// The operand whose three parameters begin here.
    pub(super) fn operand(&self, index: usize) -> KernelRows {
        KernelRows {
            address: self.u64(index),
            stride: self.u64(index + 1),
            kind: self.u32(index + 2),
        }
    }

    /// The first parameter, of a kernel of `params` parameters.
    pub(super) fn walk<const N: usize>(&self, params: usize) -> Option<RowWalk<N>> {
        self.has_params(params)?;
        let of = self.param(0);
        let ndim = of.u32(12) as usize;
        let sized = self.entry.params().first()?.size == 40 * (N + 1);
        (sized && ndim <= OUTER_DIMS).then(|| RowWalk {
            len: of.u64(0),
            rows: of.u32(8),
            dims: (0..ndim).map(|d| of.u32(16 + 4 * d)).collect(),
            strides: std::array::from_fn(|o| {
                std::array::from_fn(|d| of.u64(40 + 8 * (OUTER_DIMS * o + d)))
            }),
        })
    }

    pub(super) fn block(&self) -> [u32; 3] {
        self.launch.block
    }

    pub(super) fn blocks(&self) -> u32 {
        self.launch.grid[0]
    }

    /// The row and the first element of each thread that has `each` elements, of a kernel that allows 256 threads in one row.
    pub(super) fn places<const N: usize>(
        &self,
        walk: &RowWalk<N>,
        each: usize,
    ) -> Option<Vec<(u32, u64)>> {
        let [threads, rows, _] = self.launch.block;
        if threads > 256 || rows != 1 {
            return None;
        }
        let all = 0..u64::from(threads) * u64::from(self.launch.grid[0]);
        let places = all.map(|thread| walk.place(each as u64, thread));
        let places: Vec<_> = places.collect::<Option<_>>()?;
        Some(places.into_iter().flatten().collect())
    }
}

impl<const N: usize> RowWalk<N> {
    /// `place` of prelude.cuh: the row of a thread and its first element there. There is none for threads behind the last row.
    fn place(&self, each: u64, thread: u64) -> Option<Option<(u32, u64)>> {
        let vectors = self.len.div_ceil(each);
        let (mut row, mut index) = (0, thread);
        if self.rows > 1 {
            row = u32::try_from(thread)
                .ok()?
                .checked_div(u32::try_from(vectors).ok()?)?;
            index -= u64::from(row) * vectors;
        }
        let inside = row < self.rows && index < vectors;
        Some(inside.then_some((row, index * each)))
    }

    /// `Walk::offsets` of prelude.cuh.
    pub(super) fn offsets(&self, mut row: u32) -> Option<[u64; N]> {
        let mut at = [0u64; N];
        for (d, &dim) in self.dims.iter().enumerate() {
            let last = d + 1 == self.dims.len();
            let index = if last { row } else { row.checked_rem(dim)? };
            for (at, strides) in at.iter_mut().zip(&self.strides) {
                *at = at.checked_add(u64::from(index).checked_mul(strides[d])?)?;
            }
            row = if last { 0 } else { row / dim };
        }
        Some(at)
    }
}
