//! The driver API in a few words. Programs with a bug pass what they must not, so nothing is checked here.

use std::ffi::{CString, c_void};

use cudarc::driver::sys;

/// Calls a function of the driver; its error is a text.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $crate::driver::checked(
            stringify!($function),
            // SAFETY: these programs run on the virtual GPU alone, which checks handles and addresses of devices itself.
            // Pointers to memory of the host are made from references and live during the call, or until the operation has
            // run where it is asynchronous; programs break that only where the double finds it before it uses the memory.
            unsafe { cudarc::driver::sys::$function($($argument),*) },
        )
    };
}
pub(crate) use call;

/// An error as the driver explains it.
pub(crate) fn checked(function: &str, code: sys::CUresult) -> Result<(), String> {
    code.result()
        .map_err(|error| format!("{function}: {error:?}"))
}

pub(crate) type Pointer = sys::CUdeviceptr;
pub(crate) type Stream = sys::CUstream;
pub(crate) type Event = sys::CUevent;
pub(crate) type Function = sys::CUfunction;

/// A device with its primary context.
pub(crate) struct Gpu {
    device: sys::CUdevice,
    pub(crate) context: sys::CUcontext,
}

impl Gpu {
    pub(crate) fn open(ordinal: i32) -> Result<Self, String> {
        let (mut device, mut context) = (0, std::ptr::null_mut());
        call!(cuInit(0))?;
        call!(cuDeviceGet(&mut device, ordinal))?;
        call!(cuDevicePrimaryCtxRetain(&mut context, device))?;
        call!(cuCtxSetCurrent(context))?;
        Ok(Self { device, context })
    }

    pub(crate) fn close(self) -> Result<(), String> {
        call!(cuDevicePrimaryCtxRelease_v2(self.device))
    }
}

/// A stream beside the default stream.
pub(crate) fn stream() -> Result<Stream, String> {
    let mut stream = std::ptr::null_mut();
    call!(cuStreamCreate(&mut stream, 1))?;
    Ok(stream)
}

pub(crate) fn event() -> Result<Event, String> {
    let mut event = std::ptr::null_mut();
    call!(cuEventCreate(&mut event, 2))?;
    Ok(event)
}

pub(crate) fn destroy(streams: &[Stream], events: &[Event]) -> Result<(), String> {
    for event in events {
        call!(cuEventDestroy_v2(*event))?;
    }
    for stream in streams {
        call!(cuStreamDestroy_v2(*stream))?;
    }
    Ok(())
}

pub(crate) fn record(event: Event, stream: Stream) -> Result<(), String> {
    call!(cuEventRecord(event, stream))
}

pub(crate) fn wait(stream: Stream, event: Event) -> Result<(), String> {
    call!(cuStreamWaitEvent(stream, event, 0))
}

pub(crate) fn synchronize(stream: Stream) -> Result<(), String> {
    call!(cuStreamSynchronize(stream))
}

pub(crate) fn allocate(bytes: usize, stream: Stream) -> Result<Pointer, String> {
    let mut pointer = 0;
    call!(cuMemAllocAsync(&mut pointer, bytes, stream))?;
    Ok(pointer)
}

pub(crate) fn free(pointers: &[Pointer], stream: Stream) -> Result<(), String> {
    for pointer in pointers {
        call!(cuMemFreeAsync(*pointer, stream))?;
    }
    Ok(())
}

/// Numbers from the host to a device.
pub(crate) fn upload<T>(to: Pointer, from: &[T], stream: Stream) -> Result<(), String> {
    let bytes = size_of_val(from);
    call!(cuMemcpyHtoDAsync_v2(
        to,
        from.as_ptr().cast(),
        bytes,
        stream
    ))
}

/// A new allocation with these numbers.
pub(crate) fn uploaded<T>(from: &[T], stream: Stream) -> Result<Pointer, String> {
    let pointer = allocate(size_of_val(from), stream)?;
    upload(pointer, from, stream)?;
    Ok(pointer)
}

/// Numbers from a device to the host, when they are there.
pub(crate) fn download<T: Copy + Default>(
    from: Pointer,
    count: usize,
    stream: Stream,
) -> Result<Vec<T>, String> {
    let mut out = vec![T::default(); count];
    let bytes = size_of_val(&out[..]);
    call!(cuMemcpyDtoHAsync_v2(
        out.as_mut_ptr().cast(),
        from,
        bytes,
        stream
    ))?;
    Ok(out)
}

pub(crate) fn copy(to: Pointer, from: Pointer, bytes: usize, stream: Stream) -> Result<(), String> {
    call!(cuMemcpyDtoDAsync_v2(to, from, bytes, stream))
}

/// Pinned memory of the host, as f32.
pub(crate) fn pinned(count: usize) -> Result<*mut f32, String> {
    let mut pointer: *mut c_void = std::ptr::null_mut();
    call!(cuMemHostAlloc(&mut pointer, count * 4, 0))?;
    Ok(pointer.cast())
}

/// The numbers in pinned memory.
pub(crate) fn pinned_numbers<'p>(pointer: *mut f32, count: usize) -> &'p mut [f32] {
    // SAFETY: `pinned` allocated so many numbers, the memory is zeroed, and programs keep one reference at a time.
    unsafe { std::slice::from_raw_parts_mut(pointer, count) }
}

/// A module, with its kernels by name.
pub(crate) struct Kernels(pub(crate) sys::CUmodule);

impl Kernels {
    /// Loads a text. The error holds what the driver's compiler logged.
    pub(crate) fn load(text: &str) -> Result<Self, String> {
        use sys::CUjit_option::{
            CU_JIT_ERROR_LOG_BUFFER as LOG, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES as LOG_BYTES,
        };
        let text = CString::new(text).map_err(|e| e.to_string())?;
        let mut module = std::ptr::null_mut();
        let mut log = [0_u8; 200];
        let mut values = [
            log.as_mut_ptr().cast(),
            std::ptr::without_provenance_mut(log.len()),
        ];
        let loaded = call!(cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            2,
            [LOG, LOG_BYTES].as_mut_ptr(),
            values.as_mut_ptr()
        ));
        loaded.map_err(|error| {
            let log = log.get(..values[1].addr()).unwrap_or_default();
            format!("{error}; the log: {}", String::from_utf8_lossy(log))
        })?;
        Ok(Self(module))
    }

    pub(crate) fn function(&self, name: &str) -> Result<Function, String> {
        let name = CString::new(name).map_err(|e| e.to_string())?;
        let mut function = std::ptr::null_mut();
        call!(cuModuleGetFunction(&mut function, self.0, name.as_ptr()))?;
        Ok(function)
    }

    pub(crate) fn unload(self) -> Result<(), String> {
        call!(cuModuleUnload(self.0))
    }
}

/// The end of a program with one stream.
pub(crate) fn give_back(
    gpu: Gpu,
    kernels: Kernels,
    stream: Stream,
    pointers: &[Pointer],
) -> Result<(), String> {
    free(pointers, stream)?;
    synchronize(stream)?;
    destroy(&[stream], &[])?;
    kernels.unload()?;
    gpu.close()
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Arg {
    Pointer(Pointer),
    Int(i32),
    Long(u64),
    Map(sys::CUtensorMap),
    /// `Walk<2>` of the kernels that ship.
    Walk([u64; 15]),
}

/// Pointers, then numbers.
pub(crate) fn args(pointers: &[Pointer], numbers: &[i32]) -> Vec<Arg> {
    let pointers = pointers.iter().copied().map(Arg::Pointer);
    let numbers = numbers.iter().copied().map(Arg::Int);
    pointers.chain(numbers).collect()
}

/// The shape of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
}

pub(crate) fn launch(
    function: Function,
    shape: Shape,
    stream: Stream,
    args: &[Arg],
) -> Result<(), String> {
    let pointers = args.iter().map(|arg| match arg {
        Arg::Pointer(pointer) => std::ptr::from_ref(pointer).cast_mut().cast(),
        Arg::Int(number) => std::ptr::from_ref(number).cast_mut().cast(),
        Arg::Long(number) => std::ptr::from_ref(number).cast_mut().cast(),
        Arg::Map(map) => std::ptr::from_ref(map).cast_mut().cast(),
        Arg::Walk(walk) => std::ptr::from_ref(walk).cast_mut().cast(),
    });
    // A null ends the list, so that a missing argument is one that cannot be read.
    let mut pointers: Vec<*mut c_void> = pointers.chain([std::ptr::null_mut()]).collect();
    let Shape {
        grid: [gx, gy, gz],
        block: [bx, by, bz],
        shared,
    } = shape;
    let (pointers, extra) = (pointers.as_mut_ptr(), std::ptr::null_mut());
    call!(cuLaunchKernel(
        function, gx, gy, gz, bx, by, bz, shared, stream, pointers, extra
    ))
}
