//! The memory behind tensors: aligned buffers, memory of GPUs, mapped files, bytes embedded in the binary.

#[cfg(feature = "cuda")]
use crate::cuda::CudaBuffer;
use crate::{Device, DeviceKind, Error, Result, vector::filled};
#[cfg(all(target_os = "linux", not(miri)))]
use rayon::prelude::*;
use std::{
    alloc::{Layout, alloc, alloc_zeroed, dealloc},
    fs::File,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::Arc,
};

/// One cache line, and one AVX-512 register.
pub(crate) const ALIGN: usize = 64;

/// Bytes of a large page of x86-64, and of aarch64 with pages of 4 KiB.
#[cfg(all(target_os = "linux", not(miri)))]
const LARGE_PAGE: usize = 2 << 20;

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
        const PAGE: usize = 4096;
        if self.len >= LARGE_PAGE {
            // From the page in which the buffer begins: the allocator's own bytes before it often lie where a large page
            // could begin, and the buffer's first 2 MiB would miss theirs.
            let first = self.ptr.addr().get() / PAGE * PAGE;
            let end = (self.ptr.addr().get() + self.len) / PAGE * PAGE;
            let start = self.ptr.as_ptr().with_addr(first).cast();
            // SAFETY: every page of the range holds bytes of the buffer, so it is mapped, and the advice changes no byte.
            unsafe { libc::madvise(start, end - first, libc::MADV_HUGEPAGE) };
        }
    }

    /// Makes the calling thread's pool touch each large page of a large buffer once, each page by one thread.
    ///
    /// The system clears a page at its first touch. The threads of a kernel write neighbouring tiles at the same time: without
    /// this call several of them clear the same page, and all that work but one's is thrown away.
    pub(crate) fn touch_large_pages(&self) {
        #[cfg(all(target_os = "linux", not(miri)))]
        if self.len >= 2 * LARGE_PAGE && rayon::current_num_threads() > 1 {
            let address = self.ptr.addr().get();
            let first = address.next_multiple_of(LARGE_PAGE) - address;
            let shared = crate::shared::Shared(self.ptr.as_ptr());
            let pages = (first..self.len).into_par_iter().step_by(LARGE_PAGE);
            // SAFETY: the byte lies in the buffer, of which nothing is written or read yet; no two threads take the same one.
            pages.for_each(|at| unsafe { shared.ptr().add(at).write(0) });
        }
    }

    /// Room for as many elements of T as the product of `counts`: a kernel's own memory. Not initialised.
    pub(crate) fn of<T>(op: &'static str, counts: &[usize]) -> Result<Self> {
        let bytes = counts
            .iter()
            .try_fold(size_of::<T>(), |bytes, &n| bytes.checked_mul(n));
        Self::new(bytes.unwrap_or(usize::MAX), false, op)
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

/// An owned piece of a device's memory: the host's, or a GPU's. Its bytes may be uninitialised until the kernel that made it has filled it.
#[derive(Debug)]
pub(crate) enum DeviceMemory {
    Host(Buffer),
    #[cfg(feature = "cuda")]
    Cuda(CudaBuffer),
}

impl DeviceMemory {
    /// Memory of `bytes` bytes, of zeros or not initialised. Errors name `op`.
    pub(crate) fn new(
        op: &'static str,
        bytes: usize,
        zeroed: bool,
        device: &Device,
    ) -> Result<Self> {
        match device.kind() {
            DeviceKind::Cpu(_) => {
                let buffer = Buffer::new(bytes, zeroed, op)?;
                if !zeroed {
                    buffer.touch_large_pages();
                }
                Ok(Self::Host(buffer))
            }
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => {
                let queue = device.expect_cuda();
                let buffer = queue.alloc(op, bytes)?;
                if zeroed {
                    // SAFETY: the buffer is of this queue and has as many bytes.
                    unsafe { queue.fill(op, buffer.ptr(), 0, bytes)? };
                }
                Ok(Self::Cuda(buffer))
            }
        }
    }

    /// Where it begins: in the host's memory, or an address of the GPU, which the host does not dereference.
    pub(crate) fn ptr(&self) -> *mut u8 {
        match self {
            Self::Host(buffer) => buffer.ptr(),
            #[cfg(feature = "cuda")]
            Self::Cuda(buffer) => buffer.ptr(),
        }
    }
}

/// A file mapped read-only into memory; tensors made from it share the mapping.
///
/// Other processes may write to the file or cut it while it is mapped, and nothing that this process can do at no cost keeps
/// them from it. So the mapping is never handed out as `&[T]` or `&str`, of which Rust promises that they do not change:
///
/// - kernels read the elements through raw pointers, as numbers of which every bit pattern is one, and no number that they
///   read decides an address or a length. A process that writes to the file changes numbers of a result, and nothing else;
/// - [`Tensor::host_slice_blocking`](crate::Tensor::host_slice_blocking) of such a tensor is an error;
///   [`View::to_tensor`](crate::View::to_tensor), [`Tensor::to_vec_blocking`](crate::Tensor::to_vec_blocking) and
///   [`Tensor::host_bytes_blocking`](crate::Tensor::host_bytes_blocking) copy;
/// - [`read_at`](Self::read_at), for what is parsed, copies from the file, where a file that was cut is an error.
///
/// If a process cuts the file, this one ends when it next touches a lost page: the system sends SIGBUS, as to every program
/// that maps files. Tools that replace a model's file write another and rename it, which leaves the mapped one as it is.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, MappedFile, Tensor, embedding::embedding};
/// let path = std::env::temp_dir().join(format!("xdit-kernels-doc-{}", std::process::id()));
/// std::fs::write(&path, [1f32, 2., 3., 4.].map(f32::to_le_bytes).concat()).unwrap();
/// let file = MappedFile::open(&path)?;
/// let device = Device::cpu();
/// let table = Tensor::from_mapped(&file, 0, [2, 2], DType::F32, &device)?;
/// assert!(table.host_slice_blocking::<f32>().is_err());
/// let ids = Tensor::from_slice(&[1u32], [1], &device)?;
/// assert_eq!(embedding(&table, &ids)?.host_slice_blocking::<f32>()?, [3., 4.]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MappedFile {
    /// Raw: it gives a pointer and a length, never a reference.
    map: Arc<memmap2::MmapRaw>,
    file: Arc<File>,
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
        let map = memmap2::MmapOptions::new()
            .map_raw_read_only(&file)
            .map_err(io)?;
        Ok(Self {
            map: Arc::new(map),
            file: Arc::new(file),
            path: path.to_path_buf(),
        })
    }

    /// Bytes that are mapped: the file's when it was opened.
    pub fn byte_len(&self) -> usize {
        self.map.len()
    }

    /// A copy of `len` bytes from `offset` on, read from the file.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, also where the file ends before (it was cut since, or never was so long);
    /// [`Error::OutOfMemory`].
    pub fn read_at(&self, offset: usize, len: usize) -> Result<Vec<u8>> {
        let mut bytes = filled("reading a file", 0, len)?;
        read_exact_at(&self.file, &mut bytes, offset as u64).map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        Ok(bytes)
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

/// The memory of tensors, which share it, and the device that it is of.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    bytes: Bytes,
    device: Device,
}

/// Who owns the bytes. Those that no device owns lie in the host's memory.
#[derive(Debug, Clone)]
enum Bytes {
    Owned(Arc<DeviceMemory>),
    Mapped(MappedFile),
    Static(&'static [u8]),
}

impl Storage {
    pub(crate) fn owned(memory: DeviceMemory, device: Device) -> Self {
        let bytes = Bytes::Owned(Arc::new(memory));
        Self { bytes, device }
    }

    pub(crate) fn mapped(file: MappedFile, device: Device) -> Self {
        let bytes = Bytes::Mapped(file);
        Self { bytes, device }
    }

    pub(crate) fn of_static(bytes: &'static [u8], device: Device) -> Self {
        let bytes = Bytes::Static(bytes);
        Self { bytes, device }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The same bytes as memory of another device, if both reach it: tiers of the processor, and equal GPUs.
    pub(crate) fn shared_with(&self, device: &Device) -> Option<Self> {
        let shared = self.device.is_cpu() && device.is_cpu() || self.device == *device;
        shared.then(|| Self {
            bytes: self.bytes.clone(),
            device: device.clone(),
        })
    }

    pub(crate) fn ptr(&self) -> *const u8 {
        match &self.bytes {
            Bytes::Owned(memory) => memory.ptr(),
            Bytes::Mapped(file) => file.map.as_ptr(),
            Bytes::Static(bytes) => bytes.as_ptr(),
        }
    }

    /// Whether nobody changes the bytes while they are borrowed.
    pub(crate) fn is_steady(&self) -> bool {
        !matches!(self.bytes, Bytes::Mapped(_))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// With the one position that the clones of a handle share, so one reader at a time.
#[cfg(not(unix))]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}
