//! A task's buffers, aligned to cache lines, and the prefetching of lines.

use bytemuck::{Pod, Zeroable};

/// Prefetches cache lines, a few at a time, while something else is computed. A core can wait for about a dozen lines at
/// once, so prefetching all of them together would stall it.
pub(super) struct Prefetcher {
    row: *const u8,
    /// Bytes from row to row.
    step: usize,
    /// Bytes of a row, and how many of them have been asked for.
    bytes: usize,
    done: usize,
    rows: usize,
}

impl Prefetcher {
    /// The lines of `rows` rows of `bytes` bytes, `step` bytes apart. They need not be readable.
    pub(super) fn new(row: *const u8, step: usize, bytes: usize, rows: usize) -> Self {
        Self {
            row,
            step,
            bytes,
            done: 0,
            rows,
        }
    }

    /// Prefetches the next few lines.
    #[inline(always)]
    pub(super) fn step(&mut self) {
        let mut count = 0;
        while count < 4 && self.rows > 0 {
            prefetch(self.row.wrapping_add(self.done), 1);
            self.done += 64;
            if self.done >= self.bytes {
                self.row = self.row.wrapping_add(self.step);
                (self.done, self.rows) = (0, self.rows - 1);
            }
            count += 1;
        }
    }
}

/// Prefetches the cache lines of `n` elements. The address need not be readable.
#[inline(always)]
pub(super) fn prefetch<T>(p: *const T, n: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..n * size_of::<T>()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast::<i8>().wrapping_add(at)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (p, n);
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A growable array of f32, aligned to 64 bytes: a vector that straddles two cache lines would cost two loads.
pub(super) struct AlignedFloats(Vec<Line>);

impl AlignedFloats {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Room for `n` numbers, with anything in them.
    pub(super) fn reserve(&mut self, n: usize) {
        self.0.resize(n.div_ceil(16), Line([0.0; 16]));
    }

    /// `n` numbers (rounded up to a line), all `value`.
    pub(super) fn fill(&mut self, n: usize, value: f32) {
        self.reserve(n);
        self.as_mut_slice().fill(value);
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }
}
