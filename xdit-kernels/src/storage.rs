//! The memory behind tensors: aligned buffers, mapped files, bytes embedded in the binary.

use crate::{Error, Result};
use std::{
    alloc::{Layout, alloc, alloc_zeroed, dealloc},
    fs::File,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::Arc,
};

/// One cache line, and one AVX-512 register.
const ALIGN: usize = 64;

/// An owned, aligned piece of memory. Its bytes may be uninitialised until the kernel that made it has filled it.
#[derive(Debug)]
pub(crate) struct Buffer {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a Buffer owns its memory like a Vec<u8> does; shared access only reads.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn new(len: usize, zeroed: bool, op: &'static str) -> Result<Self> {
        if len == 0 {
            return Ok(Self {
                ptr: NonNull::<[u8; ALIGN]>::dangling().cast(),
                len,
            });
        }
        let layout = Layout::from_size_align(len, ALIGN)
            .map_err(|_| Error::OutOfMemory { op, bytes: len })?;
        // SAFETY: the layout's size is not 0.
        let ptr = unsafe {
            if zeroed {
                alloc_zeroed(layout)
            } else {
                alloc(layout)
            }
        };
        let ptr = NonNull::new(ptr).ok_or(Error::OutOfMemory { op, bytes: len })?;
        let buffer = Self { ptr, len };
        #[cfg(all(target_os = "linux", not(miri)))]
        buffer.advise_large_pages();
        Ok(buffer)
    }

    /// Asks for 2 MiB pages behind what a large buffer has of them: a fault where there were 512, and fewer misses of the
    /// TLB when packed weights are read. A hint: failure is ignored.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn advise_large_pages(&self) {
        const LARGE: usize = 2 << 20;
        const PAGE: usize = 4096;
        if self.len >= LARGE {
            // From the page in which the buffer begins: the allocator's own bytes before it often lie where a large page
            // could begin, and the buffer's first 2 MiB would miss theirs.
            let first = self.ptr.addr().get() / PAGE * PAGE;
            let end = (self.ptr.addr().get() + self.len) / PAGE * PAGE;
            let start = self.ptr.as_ptr().with_addr(first).cast();
            // SAFETY: every page of the range holds bytes of the buffer, so it is mapped, and the advice changes no byte.
            unsafe { libc::madvise(start, end - first, libc::MADV_HUGEPAGE) };
        }
    }

    pub(crate) fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `new` with exactly this layout, which was valid there.
            unsafe {
                dealloc(
                    self.ptr.as_ptr(),
                    Layout::from_size_align_unchecked(self.len, ALIGN),
                )
            }
        }
    }
}

/// A file mapped read-only into memory; tensors made from it share the mapping.
///
/// The file must not be truncated while it is mapped: the system then kills the process that touches the lost
/// pages. Files of a model are replaced by renaming, not written in place, by every tool that this project knows.
#[derive(Debug, Clone)]
pub struct MappedFile {
    map: Arc<memmap2::Mmap>,
    path: PathBuf,
}

impl MappedFile {
    /// The file's bytes, mapped.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private; see the type's note on truncation, which is the one way left
        // in which another process could invalidate it.
        let map = unsafe { memmap2::MmapOptions::new().map(&file) }.map_err(io)?;
        Ok(Self {
            map: Arc::new(map),
            path: path.to_path_buf(),
        })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the system that the pages of these bytes are not needed for now, so that they leave this process's
    /// resident memory. Reading them again reads them from the file: nothing is lost. A hint: failure is ignored.
    pub fn release(&self, offset: usize, len: usize) {
        #[cfg(unix)]
        if offset
            .checked_add(len)
            .is_some_and(|end| end <= self.map.len())
        {
            // Only whole pages inside the range, so that neighbours stay.
            const PAGE: usize = 4096;
            let start = offset.next_multiple_of(PAGE);
            let end = (offset + len) / PAGE * PAGE;
            if start < end {
                // SAFETY: the mapping is of a file and read-only, so dropped pages come back with the same bytes.
                let _ = unsafe {
                    self.map.unchecked_advise_range(
                        memmap2::UncheckedAdvice::DontNeed,
                        start,
                        end - start,
                    )
                };
            }
        }
    }
}

/// Bytes that tensors share.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    Owned(Arc<Buffer>),
    Mapped(MappedFile),
    Static(&'static [u8]),
}

impl Storage {
    pub(crate) fn ptr(&self) -> *const u8 {
        match self {
            Self::Owned(buffer) => buffer.ptr(),
            Self::Mapped(file) => file.bytes().as_ptr(),
            Self::Static(bytes) => bytes.as_ptr(),
        }
    }
}
