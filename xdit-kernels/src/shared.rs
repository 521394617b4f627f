//! A pointer for parallel loops.

/// A raw pointer that the tasks of a parallel loop share.
///
/// The `// SAFETY:` comment of the loop says why the accesses of its tasks do not overlap.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);
// SAFETY: the pointer is only a number here; each use of it is unsafe and has a proof of its own.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}
impl<T> Shared<T> {
    /// The pointer; a method, so that closures capture the whole wrapper.
    #[inline(always)]
    pub(crate) fn ptr(&self) -> *mut T {
        self.0
    }
}
