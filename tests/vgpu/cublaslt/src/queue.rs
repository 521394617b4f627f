//! Hands products to the double of libcuda, which orders and checks them like kernels.

use std::ffi::{CStr, CString, c_char, c_uint, c_void};

use crate::objects::Layout;
use crate::problem::Problem;
use crate::product::multiply;
use crate::status::{EXECUTION_FAILED, Number, Res};

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
const SCRATCH: c_uint = 3;

type Run = unsafe extern "C" fn(*mut c_void, *const *mut u8);
type Release = unsafe extern "C" fn(*mut c_void);
type Queue = unsafe extern "C" fn(
    u64,
    *const c_char,
    *const NativeSpan,
    usize,
    Run,
    Release,
    *mut c_void,
) -> u32;
type Refuse = unsafe extern "C" fn(*const c_char) -> u32;

/// The addresses of a product's operands.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) c: u64,
    pub(crate) d: u64,
    pub(crate) workspace: u64,
    pub(crate) workspace_bytes: usize,
}

/// A function of the double of libcuda.
fn function(name: &CStr) -> Res<*mut c_void> {
    // SAFETY: the names end with zeros; the library is the double, whose initialisers do nothing. It stays open.
    let found = unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            return Err(EXECUTION_FAILED);
        }
        libc::dlsym(library, name.as_ptr())
    };
    if found.is_null() {
        eprintln!("vgpu: this libcublasLt needs the double of libcuda");
        return Err(EXECUTION_FAILED);
    }
    Ok(found)
}

/// A report of the double.
pub(crate) fn report(text: &str) {
    let Ok(refuse) = function(c"vgpu_refuse") else {
        return;
    };
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: `vgpu_refuse` has this type, and the text ends with a zero.
    unsafe {
        let refuse = std::mem::transmute::<*mut c_void, Refuse>(refuse);
        refuse(text.as_ptr());
    }
}

/// The rectangles of a matrix: one for each matrix of its batch, with columns as rows.
fn spans(layout: &Layout, address: u64, usage: c_uint) -> impl Iterator<Item = NativeSpan> {
    let bytes = layout.number.bytes();
    let layout = *layout;
    (0..layout.batch as i64).map(move |index| NativeSpan {
        address: address.wrapping_add_signed(index * layout.stride * bytes as i64),
        width: layout.rows * bytes,
        height: layout.columns,
        pitch: layout.leading * bytes,
        usage,
    })
}

/// Queues a product on a stream.
pub(crate) fn queue(problem: Problem, at: Addresses, stream: u64) -> Res {
    let mut all: Vec<NativeSpan> = spans(&problem.a, at.a, READ).collect();
    all.extend(spans(&problem.b, at.b, READ));
    if problem.beta != 0.0 {
        all.extend(spans(&problem.c, at.c, READ));
    }
    if problem.has_bias {
        let bytes = problem.bias_number.bytes();
        let step = problem.description.bias_stride * bytes as i64;
        all.extend((0..problem.d.batch as i64).map(|index| NativeSpan {
            address: problem.description.bias.wrapping_add_signed(index * step),
            width: problem.m * bytes,
            height: 1,
            pitch: problem.m * bytes,
            usage: READ,
        }));
    }
    all.extend(spans(&problem.d, at.d, WRITE));
    if at.workspace_bytes > 0 {
        all.push(NativeSpan {
            address: at.workspace,
            width: at.workspace_bytes,
            height: 1,
            pitch: at.workspace_bytes,
            usage: SCRATCH,
        });
    }
    let Problem { m, n, k, .. } = problem;
    let label = CString::new(format!("cublasLtMatmul m={m} n={n} k={k}")).unwrap_or_default();
    let queue = function(c"vgpu_native")?;
    let argument = Box::into_raw(Box::new(problem)).cast();
    // SAFETY: `vgpu_native` has this type. The label and the spans live during the call. `run` and `release` get the problem
    // that was boxed here: `release` once, by whichever way the call ends.
    let code = unsafe {
        let queue = std::mem::transmute::<*mut c_void, Queue>(queue);
        queue(
            stream,
            label.as_ptr(),
            all.as_ptr(),
            all.len(),
            run,
            release,
            argument,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(EXECUTION_FAILED)
    }
}

unsafe extern "C" fn release(problem: *mut c_void) {
    // SAFETY: `queue` boxed the problem, and the double releases it once.
    drop(unsafe { Box::from_raw(problem.cast::<Problem>()) });
}

/// Computes a product from and to dense buffers, in the order of the spans of `queue`.
unsafe extern "C" fn run(problem: *mut c_void, buffers: *const *mut u8) {
    // SAFETY: the problem lives until `release`, and nobody writes it.
    let problem = unsafe { &*problem.cast::<Problem>() };
    let batch = problem.d.batch;
    let mut next = 0;
    let mut part = |count: usize, wanted: bool| {
        let first = next;
        next += if wanted { count } else { 0 };
        move |index: usize| wanted.then_some(first + index)
    };
    let a = part(batch, true);
    let b = part(batch, true);
    let c = part(batch, problem.beta != 0.0);
    let bias = part(batch, problem.has_bias);
    let d = part(batch, true);
    let matrix = |layout: &Layout| layout.rows * layout.columns * layout.number.bytes();
    let read = |index: Option<usize>, number: Number, bytes: usize| {
        let Some(index) = index else {
            return Vec::new();
        };
        // SAFETY: there is a buffer for each span, with the bytes of its rows and without gaps.
        let buffer = unsafe { std::slice::from_raw_parts(*buffers.add(index), bytes) };
        number.read(buffer)
    };
    for index in 0..batch {
        let sums = multiply(
            problem,
            &read(a(index), problem.a.number, matrix(&problem.a)),
            &read(b(index), problem.b.number, matrix(&problem.b)),
            &read(c(index), problem.c.number, matrix(&problem.c)),
            &read(
                bias(index),
                problem.bias_number,
                problem.m * problem.bias_number.bytes(),
            ),
        );
        if let Some(index) = d(index) {
            // SAFETY: as above; the buffer of `d` is used by nobody else.
            let out =
                unsafe { std::slice::from_raw_parts_mut(*buffers.add(index), matrix(&problem.d)) };
            problem.d.number.write(&sums, out);
        }
    }
}
