//! Launches: the shape of a grid, and the arguments of a kernel.

use super::stream::CudaStream;
use crate::Result;
use cudarc::driver::sys::CUfunction;
use std::mem::MaybeUninit;

/// The most blocks of a grid in y.
pub(crate) const MOST_BLOCKS_Y: usize = 65535;

/// How many blocks, of how many threads, with how much dynamic shared memory: x, y, z as CUDA counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchShape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
}

impl LaunchShape {
    /// A row of blocks, each a row of threads.
    pub(crate) fn rows(blocks: u32, threads: u32) -> Self {
        Self {
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            shared_bytes: 0,
        }
    }

    /// Whether there is no thread in it.
    pub(crate) fn is_empty(self) -> bool {
        self.grid.contains(&0) || self.block.contains(&0)
    }
}

/// What a kernel takes by value.
///
/// # Safety
/// The type lies in memory as the kernel's parameter does: `#[repr(C)]`, with the same fields. A launch notes which memory it
/// uses: an address is a parameter of its own (`*const u8`, `*mut u8`), or [`Args::uses`] tells of it.
pub(crate) unsafe trait KernelParam: Copy {
    /// The address that this parameter is, if it is one.
    fn address(self) -> Option<u64> {
        None
    }
}

macro_rules! numbers {
    ($($of:ty),*) => { $(
        // SAFETY: numbers lie in the GPU's memory as in the host's.
        unsafe impl KernelParam for $of {}
    )* };
}
numbers!(u8, i32, u32, i64, u64, f32, f64);

// SAFETY: an address of the GPU is a pointer of 64 bits.
unsafe impl KernelParam for *const u8 {
    fn address(self) -> Option<u64> {
        Some(self.addr() as u64)
    }
}

// SAFETY: as above.
unsafe impl KernelParam for *mut u8 {
    fn address(self) -> Option<u64> {
        Some(self.addr() as u64)
    }
}

/// The arguments of a launch, in the order of the kernel's parameters.
#[derive(Debug, Default)]
pub(crate) struct Args {
    /// The values, each from a whole word on. Padding inside of a value is not initialised.
    words: Vec<MaybeUninit<u64>>,
    /// First word and number of bytes of each value.
    places: Vec<(usize, usize)>,
    /// The addresses among them.
    addresses: Vec<u64>,
}

impl Args {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds the next argument.
    pub(crate) fn push<T: KernelParam>(&mut self, value: T) {
        let (first, bytes) = (self.words.len(), size_of::<T>());
        let more = bytes.div_ceil(size_of::<u64>());
        self.words.resize(first + more, MaybeUninit::uninit());
        // SAFETY: the new words have room for the value, and an unaligned write needs nothing else.
        unsafe { (self.words.as_mut_ptr().add(first).cast::<T>()).write_unaligned(value) };
        self.places.push((first, bytes));
        self.addresses.extend(value.address());
    }

    /// Tells that the kernel uses memory at this address, which no argument is: a tensor map or a field of a struct hides it.
    pub(crate) fn uses(&mut self, address: *const u8) {
        self.addresses.push(address.addr() as u64);
    }

    /// Number of bytes of each argument.
    pub(super) fn sizes(&self) -> impl ExactSizeIterator<Item = usize> {
        self.places.iter().map(|&(_, bytes)| bytes)
    }

    /// The addresses among the arguments and behind them.
    pub(super) fn addresses(&self) -> &[u64] {
        &self.addresses
    }
}

/// A kernel as the driver knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct KernelFunction {
    pub(super) raw: CUfunction,
}

// SAFETY: the driver takes launches of one function from several threads.
unsafe impl Send for KernelFunction {}

/// Gives a kernel to a stream.
///
/// # Safety
/// As [`CudaQueue::launch`](super::queue::CudaQueue::launch) demands.
pub(super) unsafe fn launch(
    op: &'static str,
    stream: &CudaStream,
    function: &KernelFunction,
    kernel: &str,
    shape: LaunchShape,
    args: &Args,
) -> Result<()> {
    let values = args.places.iter();
    // The driver copies the values during the call and does not write through these pointers.
    let pointers: Vec<*mut std::ffi::c_void> = values
        .map(|&(first, _)| args.words[first..].as_ptr().cast_mut().cast())
        .collect();
    let ([x, y, z], [block_x, block_y, block_z]) = (shape.grid, shape.block);
    let context = &stream.context;
    context.bind(op)?;
    // SAFETY: the function is of the current context; there is a pointer for each parameter, to a value of its size (checked
    // where the driver tells them); the rest is the caller's promise.
    let status = unsafe {
        (context.driver.cuLaunchKernel)(
            function.raw,
            x,
            y,
            z,
            block_x,
            block_y,
            block_z,
            shape.shared_bytes,
            stream.raw,
            pointers.as_ptr(),
            std::ptr::null(),
        )
    };
    context.check(op, &format!("the launch of {kernel}"), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_order_sizes_and_addresses() {
        #[derive(Clone, Copy)]
        #[repr(C)]
        struct Strides([u64; 3], u32);
        // SAFETY: `#[repr(C)]`, without addresses.
        unsafe impl KernelParam for Strides {}
        let address = std::ptr::without_provenance_mut::<u8>(4096);
        let mut args = Args::new();
        args.push(7u32);
        args.push(address);
        args.push(Strides([1, 2, 3], 4));
        args.push(address.cast_const());
        assert_eq!(args.sizes().collect::<Vec<_>>(), [4, 8, 32, 8]);
        assert_eq!(args.addresses(), [4096, 4096]);
        args.uses(address.cast_const());
        assert_eq!((args.sizes().len(), args.addresses().len()), (4, 3));
        let (first, _) = args.places[2];
        // SAFETY: `push` wrote a value of this type there.
        let back = unsafe {
            args.words
                .as_ptr()
                .add(first)
                .cast::<Strides>()
                .read_unaligned()
        };
        assert_eq!((back.0, back.1), ([1, 2, 3], 4));
    }

    #[test]
    fn a_grid_without_threads_is_empty() {
        assert!(!LaunchShape::rows(1, 32).is_empty());
        assert!(LaunchShape::rows(0, 32).is_empty());
        assert!(LaunchShape::rows(2, 0).is_empty());
    }
}
