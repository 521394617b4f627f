//! Programs of several streams and devices: events order what they do.

use std::ffi::c_void;
use std::sync::mpsc::{Receiver, channel};

use crate::driver::{
    Function, Gpu, Kernels, Pointer, Shape, Stream, allocate, args, call, copy, destroy, download,
    event, free, launch, pinned, pinned_numbers, record, stream, synchronize, upload, uploaded,
    wait,
};
use crate::{Outcome, Program, compare};

const BASICS: &str = include_str!("../../ptx-interp/kernels/basics.ptx");
const N: usize = 512;

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "two streams",
        capability: 80,
        run: two_streams,
        bugs: &[
            ("no wait for the kernel", "data race"),
            ("the wait before the record", "data race"),
            ("the record before the kernel", "data race"),
            ("a wait for another event", "data race"),
            ("a wait of the wrong stream", "data race"),
            ("no wait for the copy", "data race"),
        ],
    },
    Program {
        name: "staging",
        capability: 80,
        run: staging,
        bugs: &[
            (
                "the staging memory is filled again too early",
                "~the host changed pinned memory",
            ),
            ("the result is read too early", "~wrong result"),
            ("two copies into the same staging memory", "data race"),
            (
                "the staging memory is freed too early",
                "~freed while in use",
            ),
        ],
    },
    Program {
        name: "two devices",
        capability: 80,
        run: two_devices,
        bugs: &[
            ("no wait for the other device", "data race"),
            ("overwritten before the other device has it", "data race"),
            ("the wrong context", "is not memory of device"),
            ("an event of the other device", "recorded in stream"),
            ("a kernel without peer access", "no peer access"),
        ],
    },
    Program {
        name: "host function",
        capability: 80,
        run: host_function,
        bugs: &[],
    },
    Program {
        name: "graph",
        capability: 80,
        run: graph,
        bugs: &[
            ("a lane is not joined", "not joined"),
            ("a wait for an event from outside", "outside of the capture"),
            ("the host waits during the capture", "a call waits for"),
            ("the result is read without a wait", "data race"),
            ("an input is overwritten without a wait", "data race"),
        ],
    },
];

fn numbers(first: f32) -> Vec<f32> {
    (0..N).map(|i| first + i as f32).collect()
}

/// `a + b`: the kernel multiplies `b` by `scale[n % 4]`, which is 1 for `N`.
fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `c = sum(a, b)` on a device.
fn vector_add(add: Function, abc: [Pointer; 3], stream: Stream) -> Outcome {
    let shape = Shape {
        grid: [N as u32 / 128, 1, 1],
        block: [32, 1, 1],
        shared: 0,
    };
    launch(add, shape, stream, &args(&abc, &[N as i32]))
}

/// A kernel on one stream, a copy of its result on another, and then a kernel that overwrites what was copied.
fn two_streams(bug: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(BASICS)?;
    let add = kernels.function("vector_add")?;
    let (s, t) = (stream()?, stream()?);
    let (ready, copied, other) = (event()?, event()?, event()?);
    let (a, b) = (uploaded(&numbers(0.0), s)?, uploaded(&numbers(5.0), s)?);
    let (c, d) = (allocate(N * 4, s)?, allocate(N * 4, s)?);
    record(other, s)?;
    wait(t, other)?; // the allocation of d
    if bug == "the wait before the record" {
        wait(t, ready)?;
    }
    if bug == "the record before the kernel" {
        record(ready, s)?;
    }
    vector_add(add, [a, b, c], s)?;
    if bug != "the record before the kernel" {
        record(ready, s)?;
    }
    match bug {
        "no wait for the kernel" | "the wait before the record" => {}
        "a wait for another event" => wait(t, other)?,
        "a wait of the wrong stream" => wait(s, ready)?,
        _ => wait(t, ready)?,
    }
    copy(d, c, N * 4, t)?;
    record(copied, t)?;
    if bug != "no wait for the copy" {
        wait(s, copied)?;
    }
    vector_add(add, [b, b, c], s)?;
    let got: Vec<f32> = download(d, N, t)?;
    let twice: Vec<f32> = download(c, N, s)?;
    compare(&got, &sum(&numbers(0.0), &numbers(5.0)))?;
    compare(&twice, &sum(&numbers(5.0), &numbers(5.0)))?;
    record(copied, t)?;
    wait(s, copied)?;
    free(&[a, b, c, d], s)?;
    synchronize(s)?;
    destroy(&[s, t], &[ready, copied, other])?;
    kernels.unload()?;
    gpu.close()
}

/// Batches go through one piece of pinned memory, to the device and back.
fn staging(bug: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    let (s, t) = (stream()?, stream()?);
    let (done, ready) = (event()?, event()?);
    let x = allocate(N * 4, s)?;
    let pointer = pinned(N)?;
    for batch in 0..3 {
        let wanted = numbers(batch as f32 * 100.0);
        pinned_numbers(pointer, N).copy_from_slice(&wanted);
        upload(x, pinned_numbers(pointer, N), s)?;
        record(done, s)?;
        if bug != "the staging memory is filled again too early" {
            call!(cuEventSynchronize(done))?;
        }
        pinned_numbers(pointer, N).fill(-1.0);
        call!(cuMemcpyDtoHAsync_v2(pointer.cast(), x, N * 4, s))?;
        if bug == "two copies into the same staging memory" {
            wait(t, done)?;
            call!(cuMemcpyDtoHAsync_v2(pointer.cast(), x, N * 2, t))?;
        }
        if bug == "the staging memory is freed too early" {
            return call!(cuMemFreeHost(pointer.cast()));
        }
        record(ready, s)?;
        if bug != "the result is read too early" {
            call!(cuEventSynchronize(ready))?;
        }
        compare(pinned_numbers(pointer, N), &wanted)?;
    }
    call!(cuMemFreeHost(pointer.cast()))?;
    free(&[x], s)?;
    synchronize(s)?;
    destroy(&[s, t], &[done, ready])?;
    gpu.close()
}

/// A kernel on device 0; device 1 copies its result; a kernel on device 0 then reads the copy.
fn two_devices(bug: &str) -> Outcome {
    let second = Gpu::open(1)?;
    let t = stream()?;
    let (copied, alien) = (event()?, event()?);
    let mut d = 0;
    call!(cuMemAlloc_v2(&mut d, N * 4))?;
    let first = Gpu::open(0)?;
    let mut possible = 0;
    call!(cuDeviceCanAccessPeer(&mut possible, 0, 1))?;
    if possible == 1 && bug != "a kernel without peer access" {
        call!(cuCtxEnablePeerAccess(second.context, 0))?;
    }
    let kernels = Kernels::load(BASICS)?;
    let add = kernels.function("vector_add")?;
    let (s, ready) = (stream()?, event()?);
    let (a, b) = (uploaded(&numbers(0.0), s)?, uploaded(&numbers(5.0), s)?);
    let c = allocate(N * 4, s)?;
    vector_add(add, [a, b, c], s)?;
    record(
        if bug == "an event of the other device" {
            alien
        } else {
            ready
        },
        s,
    )?;
    if bug != "no wait for the other device" {
        wait(t, ready)?;
    }
    let owner = if bug == "the wrong context" {
        second.context
    } else {
        first.context
    };
    call!(cuMemcpyPeerAsync(d, second.context, c, owner, N * 4, t))?;
    record(copied, t)?;
    if bug != "overwritten before the other device has it" {
        wait(s, copied)?;
    }
    vector_add(add, [d, d, c], s)?;
    let got: Vec<f32> = download(d, N, t)?;
    let twice: Vec<f32> = download(c, N, s)?;
    let once = sum(&numbers(0.0), &numbers(5.0));
    compare(&got, &once)?;
    compare(&twice, &sum(&once, &once))?;
    free(&[a, b, c], s)?;
    synchronize(s)?;
    call!(cuMemFree_v2(d))?;
    destroy(&[s], &[ready])?;
    kernels.unload()?;
    first.close()?;
    destroy(&[t], &[copied, alien])?;
    second.close()
}

/// What `host_function` queues: it waits for a message.
unsafe extern "C" fn receive(receiver: *mut c_void) {
    // SAFETY: `host_function` boxed the receiver, and the driver calls this once.
    let receiver = unsafe { Box::from_raw(receiver.cast::<Receiver<()>>()) };
    let _ = receiver.recv();
}

/// The call that queues a function of the host does not wait for it.
fn host_function(_: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    let s = stream()?;
    let (release, receiver) = channel::<()>();
    let receiver = Box::into_raw(Box::new(receiver));
    call!(cuLaunchHostFunc(s, Some(receive), receiver.cast()))?;
    if call!(cuStreamQuery(s)).is_ok() {
        return Err("the stream does not wait for the function".to_owned());
    }
    release.send(()).map_err(|error| error.to_string())?;
    synchronize(s)?;
    call!(cuStreamQuery(s))?;
    destroy(&[s], &[])?;
    gpu.close()
}

/// A kernel and, beside it, a copy; replayed as a graph.
fn graph(bug: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(BASICS)?;
    let add = kernels.function("vector_add")?;
    let (s, t) = (stream()?, stream()?);
    let (fork, join, outside) = (event()?, event()?, event()?);
    let (a, b) = (uploaded(&numbers(0.0), s)?, uploaded(&numbers(5.0), s)?);
    let (c, d) = (allocate(N * 4, s)?, allocate(N * 4, s)?);
    record(outside, s)?;
    synchronize(s)?;
    let (mut graph, mut replay) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mode = cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    call!(cuStreamBeginCapture_v2(s, mode))?;
    record(fork, s)?;
    wait(t, fork)?;
    if bug == "a wait for an event from outside" {
        wait(t, outside)?;
    }
    copy(d, b, N * 4, t)?;
    vector_add(add, [a, b, c], s)?;
    if bug == "the host waits during the capture" {
        synchronize(s)?;
    }
    record(join, t)?;
    if bug != "a lane is not joined" {
        wait(s, join)?;
    }
    call!(cuStreamEndCapture(s, &mut graph))?;
    call!(cuGraphInstantiateWithFlags(&mut replay, graph, 0))?;
    for round in 0..3 {
        if bug == "an input is overwritten without a wait" {
            upload(a, &numbers(round as f32), t)?;
        } else {
            upload(a, &numbers(round as f32), s)?;
        }
        call!(cuGraphLaunch(replay, s))?;
        record(join, s)?;
        if bug != "the result is read without a wait" {
            wait(t, join)?;
        }
        let got: Vec<f32> = download(c, N, t)?;
        compare(&got, &sum(&numbers(round as f32), &numbers(5.0)))?;
    }
    synchronize(s)?;
    compare(&download::<f32>(d, N, s)?, &numbers(5.0))?;
    call!(cuGraphExecDestroy(replay))?;
    call!(cuGraphDestroy(graph))?;
    free(&[a, b, c, d], s)?;
    synchronize(s)?;
    destroy(&[s, t], &[fork, join, outside])?;
    kernels.unload()?;
    gpu.close()
}
