//! Entry points that no driver has: for the doubles of cuBLASLt and NCCL.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::AtomicBool;

use crate::api::calls::api;
use crate::api::current::stream_index;
use crate::arguments::{In, Out, Text};
use crate::codes;
use crate::engine::engine;
use crate::work::{Gate, GateLook, Native, NativeDrop, NativeRun, Rect, Use, Work};

/// A rectangle of device memory that a native operation uses. `vgpu-cublaslt` and `vgpu-nccl` have the same declaration.
#[repr(C)]
#[derive(Clone, Copy)]
struct NativeSpan {
    address: u64,
    width: usize,
    height: usize,
    pitch: usize,
    /// 1: it is read, 2: it is written, 3: it is scratch.
    usage: c_uint,
}

api! {
    /// Queues an operation that the host computes. It is ordered and checked like a kernel. When it runs, possibly on another
    /// thread and more than once, `run` gets a buffer for each span; the argument is given up with `release`, once.
    fn vgpu_native(
        stream: u64,
        label: Text,
        spans: In<NativeSpan>,
        count: usize,
        run: NativeRun,
        release: NativeDrop,
        argument: *mut c_void,
    ) {
        let mut native = Native { spans: Vec::with_capacity(count), run, release, argument };
        for span in spans.list(count)? {
            let usage = match span.usage {
                1 => Use::Read,
                2 => Use::Write,
                3 => Use::Scratch,
                _ => return Err(codes::INVALID_VALUE),
            };
            let NativeSpan { address, width, height, pitch, .. } = span;
            native.spans.push((Rect { address, width, height, pitch }, usage));
        }
        let label = String::from_utf8_lossy(label.bytes()?).into_owned();
        let stream = stream_index(stream)?;
        engine()?.submit(stream, Work::Native(native.into()), label).map(|_| ())
    }

    /// The next finding is a report of the double that calls, such as an operand that its library does not allow.
    fn vgpu_refuse(text: Text) {
        let text = String::from_utf8_lossy(text.bytes()?).into_owned();
        engine()?.lock().refuse(codes::INVALID_VALUE, text)
    }

    /// Queues a gate: what the stream is given later runs after `look` has returned 0. Any thread may look, under the lock of this
    /// double; `look` calls nothing of it. 1 means that nothing queued opens the gate, and any other number is the handle of a stream
    /// that must get on first.
    fn vgpu_gate(stream: u64, label: Text, look: GateLook, release: NativeDrop, argument: *mut c_void) {
        let gate = Gate { look, release, argument, given_up: AtomicBool::new(false) };
        let label = String::from_utf8_lossy(label.bytes()?).into_owned();
        let stream = stream_index(stream)?;
        engine()?.submit(stream, Work::Gate(gate.into()), label).map(|_| ())
    }

    /// A gate may look otherwise now.
    fn vgpu_wake() {
        engine()?.wake();
        Ok(())
    }

    /// Runs one operation so that a stream gets on, whatever the policy: another process waits for it. `stepped` is 0 if none can run.
    fn vgpu_step(stream: u64, stepped: Out<c_int>) {
        let stream = stream_index(stream)?;
        stepped.set(c_int::from(engine()?.step_towards(stream)))
    }

    /// The device of a stream.
    fn vgpu_stream_device(stream: u64, device: Out<c_int>) {
        let stream = stream_index(stream)?;
        device.set(engine()?.lock().streams[stream].device as c_int)
    }
}
