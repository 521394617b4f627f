//! A task's numbers, on the boundaries of cache lines: a vector that straddles two of them costs two loads.

use bytemuck::{Pod, Zeroable};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A growable array of f32, aligned to 64 bytes.
pub(super) struct Floats(Vec<Line>);

impl Floats {
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
