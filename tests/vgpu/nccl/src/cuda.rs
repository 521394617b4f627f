//! What the double of libcuda does for this one: it orders operations and checks the memory that they use.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::messages::Launch;
use crate::status::{CUDA_ERROR, Res};

/// A rectangle of device memory; `vgpu-cuda` has the same declaration.
#[repr(C)]
struct NativeSpan {
    address: u64,
    width: usize,
    height: usize,
    pitch: usize,
    usage: c_uint,
}

const READ: c_uint = 1;
const WRITE: c_uint = 2;

type Run = unsafe extern "C" fn(*mut c_void, *const *mut u8);
type Look = unsafe extern "C" fn(*mut c_void) -> u64;
type Release = unsafe extern "C" fn(*mut c_void);
type Text = unsafe extern "C" fn(*const c_char) -> u32;
type Number = unsafe extern "C" fn(*mut c_int) -> u32;
type NumberOf = unsafe extern "C" fn(u64, *mut c_int) -> u32;
type Queue = unsafe extern "C" fn(
    u64,
    *const c_char,
    *const NativeSpan,
    usize,
    Run,
    Release,
    *mut c_void,
) -> u32;
type QueueGate = unsafe extern "C" fn(u64, *const c_char, Look, Release, *mut c_void) -> u32;

/// A function of the double of libcuda.
fn function(name: &CStr) -> Res<*mut c_void> {
    // SAFETY: the names end with zeros; the library is the double, whose initialisers do nothing. It stays open.
    let found = unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            return Err(CUDA_ERROR);
        }
        libc::dlsym(library, name.as_ptr())
    };
    if found.is_null() {
        eprintln!("vgpu: this libnccl needs the double of libcuda");
        return Err(CUDA_ERROR);
    }
    Ok(found)
}

fn checked(code: u32) -> Res {
    if code == 0 { Ok(()) } else { Err(CUDA_ERROR) }
}

/// A report of the double.
pub(crate) fn report(text: &str) {
    let Ok(refuse) = function(c"vgpu_refuse") else {
        return;
    };
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: `vgpu_refuse` has this type, and the text ends with a zero.
    unsafe { std::mem::transmute::<*mut c_void, Text>(refuse)(text.as_ptr()) };
}

/// The device of the calling thread's context.
pub(crate) fn current_device() -> Res<c_int> {
    let (ask, mut device) = (function(c"cuCtxGetDevice")?, 0);
    // SAFETY: `cuCtxGetDevice` has this type, and the pointer is to a number.
    checked(unsafe { std::mem::transmute::<*mut c_void, Number>(ask)(&mut device) })?;
    Ok(device)
}

/// Which GPU of the machine a device of this process is.
pub(crate) fn gpu(device: c_int) -> Res<u64> {
    type Identity = unsafe extern "C" fn(*mut [u8; 16], c_int) -> u32;
    let (ask, mut identity) = (function(c"cuDeviceGetUuid_v2")?, [0; 16]);
    // SAFETY: `cuDeviceGetUuid_v2` has this type, and the pointer is to 16 bytes.
    checked(unsafe { std::mem::transmute::<*mut c_void, Identity>(ask)(&mut identity, device) })?;
    Ok(u64::from(identity[15]))
}

/// Runs what a stream waits for next, or its next operation; false if nothing of that can run.
pub(crate) fn step(stream: u64) -> bool {
    let mut stepped = 0;
    let Ok(step) = function(c"vgpu_step") else {
        return false;
    };
    // SAFETY: `vgpu_step` has this type, and the pointer is to a number.
    let code = unsafe { std::mem::transmute::<*mut c_void, NumberOf>(step)(stream, &mut stepped) };
    code == 0 && stepped == 1
}

/// The device of a stream.
pub(crate) fn stream_device(stream: u64) -> Res<c_int> {
    let (ask, mut device) = (function(c"vgpu_stream_device")?, 0);
    // SAFETY: `vgpu_stream_device` has this type, and the pointer is to a number.
    checked(unsafe { std::mem::transmute::<*mut c_void, NumberOf>(ask)(stream, &mut device) })?;
    Ok(device)
}

/// Lets a stream get on, or not.
pub(crate) fn look_at_stream(stream: u64) {
    if let Ok(query) = function(c"cuStreamQuery") {
        // SAFETY: `cuStreamQuery` has this type.
        unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64) -> u32>(query)(stream)
        };
    }
}

/// Threads that wait for gates look again.
pub(crate) fn wake() {
    if let Ok(wake) = function(c"vgpu_wake") {
        // SAFETY: `vgpu_wake` has this type.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> u32>(wake)() };
    }
}

fn argument(launch: &Arc<Launch>) -> *mut c_void {
    Arc::into_raw(Arc::clone(launch)).cast_mut().cast()
}

/// Queues the operation of a group: it reads what is sent, waits until all its peers are there, and writes what has come.
pub(crate) fn queue(launch: &Arc<Launch>) -> Res {
    let (native, gate) = (function(c"vgpu_native")?, function(c"vgpu_gate")?);
    // SAFETY: these functions have these types.
    let (native, gate) = unsafe {
        (
            std::mem::transmute::<*mut c_void, Queue>(native),
            std::mem::transmute::<*mut c_void, QueueGate>(gate),
        )
    };
    let spans = |places: &mut dyn Iterator<Item = (u64, usize)>, usage| -> Vec<NativeSpan> {
        let span = |(address, bytes)| NativeSpan {
            address,
            width: bytes,
            height: 1,
            pitch: bytes,
            usage,
        };
        places.map(span).collect()
    };
    let sent = spans(
        &mut launch.sends.iter().map(|(at, p)| (*at, p.bytes())),
        READ,
    );
    let received = spans(
        &mut launch.wants.iter().map(|(at, w)| (*at, w.bytes())),
        WRITE,
    );
    let (stream, label) = (launch.presence.stream, launch.presence.label.as_str());
    let [reads, waits, writes] = ["reads", "", "writes"]
        .map(|what| CString::new(format!("{label} {what}").trim_end()).unwrap_or_default());
    // SAFETY: the labels and the spans live during the calls. Each call gets a reference to the launch of its own, which is given up
    // once, by `release`, by whichever way the call ends.
    unsafe {
        checked(native(
            stream,
            reads.as_ptr(),
            sent.as_ptr(),
            sent.len(),
            arrive,
            release,
            argument(launch),
        ))?;
        checked(gate(
            stream,
            waits.as_ptr(),
            look,
            release,
            argument(launch),
        ))?;
        checked(native(
            stream,
            writes.as_ptr(),
            received.as_ptr(),
            received.len(),
            deliver,
            release,
            argument(launch),
        ))
    }
}

unsafe extern "C" fn release(launch: *mut c_void) {
    // SAFETY: `argument` made it, and the double of libcuda releases it once.
    drop(unsafe { Arc::from_raw(launch.cast::<Launch>()) });
}

unsafe extern "C" fn look(launch: *mut c_void) -> u64 {
    // SAFETY: the launch lives until `release`.
    unsafe { &*launch.cast::<Launch>() }.sight()
}

/// The group is at the head of its stream: its peers can have what it sends.
unsafe extern "C" fn arrive(launch: *mut c_void, buffers: *const *mut u8) {
    // SAFETY: the launch lives until `release`.
    let launch = unsafe { &*launch.cast::<Launch>() };
    let sends = launch.sends.iter().enumerate();
    let sent: Vec<&[u8]> = sends
        .map(|(i, (_, parcel))| {
            // SAFETY: there is a buffer for each span, with its bytes.
            unsafe { std::slice::from_raw_parts(*buffers.add(i), parcel.bytes()) }
        })
        .collect();
    launch.arrive(&sent);
}

unsafe extern "C" fn deliver(launch: *mut c_void, buffers: *const *mut u8) {
    // SAFETY: the launch lives until `release`.
    let launch = unsafe { &*launch.cast::<Launch>() };
    for (i, (_, wanted)) in launch.wants.iter().enumerate() {
        // SAFETY: there is a buffer for each span, with its bytes, which nobody else uses.
        let bytes = unsafe { std::slice::from_raw_parts_mut(*buffers.add(i), wanted.bytes()) };
        wanted.take(bytes);
    }
    launch.presence.delivered.store(true, Ordering::Release);
}
