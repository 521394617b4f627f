//! What the process's allocator does with large pieces of memory.

/// Whether the C library will keep memory that is freed for what is allocated next, instead of giving it back to the system.
///
/// For the `main` of a program, before it starts threads: it concerns the whole process, for the rest of its life. An
/// activation that is written to memory fresh from the system costs a page fault every 4 KiB, in which the kernel clears it
/// first: more than a row operation itself. glibc gives every block above 32 MiB back when it is freed; with this call it
/// keeps all, in one heap. Peak memory is what it was, give or take the heap's gaps; memory in use does not shrink after it.
///
/// False, and without effect, where the C library is another one.
///
/// # Examples
/// ```
/// let kept = xdit_kernels::keep_freed_memory();
/// assert_eq!(kept, cfg!(all(target_os = "linux", target_env = "gnu", not(miri))));
/// ```
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        let settings = [
            (libc::M_MMAP_MAX, 0),
            (libc::M_TRIM_THRESHOLD, i32::MAX),
            (libc::M_ARENA_MAX, 1),
        ];
        // SAFETY: mallopt takes two numbers, refuses those that it does not know, and takes the allocator's lock.
        settings
            .into_iter()
            .all(|(name, value)| unsafe { libc::mallopt(name, value) } == 1)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    false
}
