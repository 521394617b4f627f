//! What the process's allocator does with large pieces of memory, and when there is none.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator for a program that ends in order when memory is refused.
///
/// Rust ends the process by SIGABRT where memory is refused to what cannot report it: a growing list, a name, a box. Made a
/// program's `#[global_allocator]`, this calls the program's own function instead, with the number of bytes; it may remove
/// temporary files, say one line, and must end the process. The memory of tensors is left out: without any their constructors
/// return [`Error::OutOfMemory`](crate::Error::OutOfMemory), with the operation's name. Other calls that could handle a
/// refusal ([`reserved`](crate::reserved), `Vec::try_reserve`) end the process too: an allocator cannot tell who asks.
///
/// # Examples
/// ```
/// use xdit_kernels::LastResort;
///
/// #[global_allocator]
/// static ALLOCATOR: LastResort = LastResort::new(|bytes| {
///     eprintln!("out of memory: {bytes} bytes");
///     std::process::exit(5)
/// });
/// assert_eq!(vec![1; 3].len(), 3);
/// ```
#[derive(Debug)]
pub struct LastResort {
    end: fn(usize) -> !,
}

impl LastResort {
    /// An allocator that calls `end` with the number of bytes that the system refused. `end` is called by the thread that asked,
    /// wherever that is, locks that it holds included; if it panics the process is aborted.
    pub const fn new(end: fn(usize) -> !) -> Self {
        Self { end }
    }

    /// `ptr`, unless it is null and whoever asked cannot know what to do.
    fn checked(&self, ptr: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if ptr.is_null() && layout.align() < crate::storage::ALIGN {
            let _no_unwinding = AbortOnDrop;
            (self.end)(bytes)
        }
        ptr
    }
}

/// Unwinding out of an allocator is undefined behaviour: what would drop this aborts instead.
struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        std::process::abort()
    }
}

// SAFETY: every call goes to `System` with the caller's own arguments, and what it returns is returned, null too; so what the
// contract asks of an allocator is what `System` keeps. `checked` does not unwind.
unsafe impl GlobalAlloc for LastResort {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about the layout.
        self.checked(unsafe { System.alloc(layout) }, layout, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about the layout.
        self.checked(
            unsafe { System.alloc_zeroed(layout) },
            layout,
            layout.size(),
        )
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: `ptr` is of this allocator, which is `System`, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: `ptr` is of this allocator, which is `System`, with this layout; the new size is not 0.
        self.checked(
            unsafe { System.realloc(ptr, layout, new_size) },
            layout,
            new_size,
        )
    }
}

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
