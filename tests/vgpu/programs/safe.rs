//! Programs of cudarc's safe layer: what it calls of the driver, and that its own tracking of events raises no alarm.

use std::sync::Arc;

use cudarc::cublaslt::{Activation, CudaBlasLT, Matmul, MatmulConfig};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use half::bf16;

use crate::{Outcome, Program, compare};

const BASICS: &str = include_str!("../../ptx-interp/kernels/basics.ptx");
const N: usize = 512;

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "safe contexts",
        capability: 80,
        run: contexts,
        bugs: &[],
    },
    Program {
        name: "safe memory",
        capability: 80,
        run: memory,
        bugs: &[],
    },
    Program {
        name: "safe launches",
        capability: 80,
        run: launches,
        bugs: &[("tracking of events is off", "data race")],
    },
    Program {
        name: "safe graphs",
        capability: 80,
        run: graphs,
        bugs: &[],
    },
    Program {
        name: "safe products",
        capability: 80,
        run: products,
        bugs: &[("tracking of events is off", "data race")],
    },
    Program {
        name: "safe ranks",
        capability: 80,
        run: ranks,
        bugs: &[],
    },
];

/// An error of cudarc as text.
fn text<E: std::fmt::Debug>(error: E) -> String {
    format!("{error:?}")
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Outcome {
    if got == want {
        Ok(())
    } else {
        Err(format!("{what}: {got:?} instead of {want:?}"))
    }
}

fn numbers(first: f32) -> Vec<f32> {
    (0..N).map(|i| first + i as f32).collect()
}

fn contexts(_: &str) -> Outcome {
    expect("devices", CudaContext::device_count().map_err(text)?, 2)?;
    let context = CudaContext::new(0).map_err(text)?;
    let name = context.name().map_err(text)?;
    expect(
        "name",
        name.as_str(),
        "Virtual GPU 0 (compute capability 8.0)",
    )?;
    expect(
        "capability",
        context.compute_capability().map_err(text)?,
        (8, 0),
    )?;
    expect("primary", context.is_primary(), true)?;
    let other = CudaContext::new(1).map_err(text)?;
    if context.uuid().map_err(text)?.bytes == other.uuid().map_err(text)?.bytes {
        return Err("two devices have one UUID".to_owned());
    }
    context.bind_to_thread().map_err(text)?;
    let attribute = |which| context.attribute(which).map_err(text);
    let warp = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE)?;
    expect("warp", warp, 32)?;
    let shared = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    expect("shared memory", attribute(shared)?, 163 << 10)?;
    let (free, total) = context.mem_get_info().map_err(text)?;
    expect(
        "memory",
        (free, total),
        (64 << 20, context.total_mem().map_err(text)?),
    )?;
    let stream = context.new_stream().map_err(text)?;
    // SAFETY: nobody reads this memory.
    let large = unsafe { stream.alloc::<u8>(48 << 20) }.map_err(text)?;
    // SAFETY: as above.
    let second = unsafe { stream.alloc::<u8>(32 << 20) };
    let code = second.err().map(|error| error.0);
    expect(
        "too much memory",
        code,
        Some(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY),
    )?;
    let left = context.mem_get_info().map_err(text)?.0;
    expect("memory left", left, 16 << 20)?;
    drop(large);
    let event = context
        .new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))
        .map_err(text)?;
    event.record(&stream).map_err(text)?;
    let end = stream
        .record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))
        .map_err(text)?;
    while !end.is_complete() {}
    event.synchronize().map_err(text)?;
    if event.elapsed_ms(&end).map_err(text)? < 0.0 {
        return Err("time runs backwards".to_owned());
    }
    context
        .new_stream_with_priority(-1)
        .map_err(text)?
        .synchronize()
        .map_err(text)?;
    context.synchronize().map_err(text)
}

fn memory(_: &str) -> Outcome {
    let context = CudaContext::new(0).map_err(text)?;
    let stream = context.default_stream();
    let mut a = stream.clone_htod(&numbers(0.0)).map_err(text)?;
    let copy = a.try_clone().map_err(text)?;
    stream
        .memset_zeros(&mut a.slice_mut(..N / 2))
        .map_err(text)?;
    let (left, right) = a.split_at(N / 2);
    compare(&stream.clone_dtoh(&left).map_err(text)?, &[0.0; N / 2])?;
    compare(
        &stream.clone_dtoh(&right).map_err(text)?,
        &numbers(0.0)[N / 2..],
    )?;
    stream.memcpy_dtod(&copy, &mut a).map_err(text)?;
    stream.synchronize().map_err(text)?;
    compare(&stream.clone_dtoh(&a).map_err(text)?, &numbers(0.0))?;
    // A slice becomes an address and again a slice.
    let pointer = a.leak();
    // SAFETY: the address is that of the slice which was leaked, with its length.
    let a: CudaSlice<f32> = unsafe { stream.upgrade_device_ptr(pointer, N) };
    // SAFETY: the copy below writes all of it before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<f32>(N) }.map_err(text)?;
    stream.memcpy_dtoh(&a, &mut pinned).map_err(text)?;
    stream.synchronize().map_err(text)?;
    compare(pinned.as_slice().map_err(text)?, &numbers(0.0))?;
    pinned.as_mut_slice().map_err(text)?.fill(3.0);
    let mut b = stream.alloc_zeros::<f32>(N).map_err(text)?;
    stream.memcpy_htod(&pinned, &mut b).map_err(text)?;
    stream.synchronize().map_err(text)?;
    pinned.as_mut_slice().map_err(text)?.fill(4.0);
    compare(&stream.clone_dtoh(&b).map_err(text)?, &[3.0; N])
}

/// A context with the kernel `vector_add`.
fn adder(device: usize) -> Result<(Arc<CudaContext>, CudaFunction), String> {
    let context = CudaContext::new(device).map_err(text)?;
    let module = context.load_module(Ptx::from_src(BASICS)).map_err(text)?;
    let add = module.load_function("vector_add").map_err(text)?;
    Ok((context, add))
}

fn add(
    stream: &Arc<CudaStream>,
    kernel: &CudaFunction,
    [a, b]: [&CudaSlice<f32>; 2],
    c: &mut CudaSlice<f32>,
) -> Outcome {
    let n = N as i32;
    let mut launch = stream.launch_builder(kernel);
    launch.arg(a).arg(b).arg(c).arg(&n);
    let shape = LaunchConfig {
        grid_dim: (N as u32 / 128, 1, 1),
        block_dim: (32, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: the arguments are those of `vector_add`, and all arrays have N numbers.
    unsafe { launch.launch(shape) }.map(|_| ()).map_err(text)
}

fn two_streams(context: &Arc<CudaContext>) -> Result<(Arc<CudaStream>, Arc<CudaStream>), String> {
    let stream = || context.new_stream().map_err(text);
    Ok((stream()?, stream()?))
}

/// Two operands of `add`, and memory for the result.
fn operands(stream: &Arc<CudaStream>) -> Result<[CudaSlice<f32>; 3], String> {
    let on_device = |first| stream.clone_htod(&numbers(first)).map_err(text);
    let out = stream.alloc_zeros::<f32>(N).map_err(text)?;
    Ok([on_device(0.0)?, on_device(5.0)?, out])
}

/// What `add` makes of `operands`.
fn sum() -> Vec<f32> {
    let pairs = numbers(0.0).into_iter().zip(numbers(5.0));
    pairs.map(|(a, b)| a + b).collect()
}

fn launches(bug: &str) -> Outcome {
    let (context, kernel) = adder(0)?;
    if bug == "tracking of events is off" {
        // SAFETY: this is the bug.
        unsafe { context.disable_event_tracking() };
    }
    expect(
        "threads",
        kernel.max_threads_per_block().map_err(text)?,
        1024,
    )?;
    expect(
        "shared memory",
        kernel.shared_size_bytes().map_err(text)?,
        0,
    )?;
    expect("binary", kernel.binary_version().map_err(text)?, 80)?;
    let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    kernel.set_attribute(most, 100_000).map_err(text)?;
    expect(
        "dynamic",
        kernel.get_attribute(most).map_err(text)?,
        100_000,
    )?;
    let blocks = kernel.occupancy_max_active_blocks_per_multiprocessor(128, 0, None);
    expect("occupancy", blocks.map_err(text)?, 16)?;
    let (s, t) = two_streams(&context)?;
    let [a, b, mut c] = operands(&s)?;
    add(&s, &kernel, [&a, &b], &mut c)?;
    // cudarc lets the other stream wait.
    let got = t.clone_dtoh(&c).map_err(text)?;
    compare(&got, &sum())
}

fn graphs(_: &str) -> Outcome {
    let (context, kernel) = adder(0)?;
    // SAFETY: the streams are joined by hand.
    unsafe { context.disable_event_tracking() };
    let (s, t) = two_streams(&context)?;
    let [a, b, mut c] = operands(&s)?;
    let mut d = s.alloc_zeros::<f32>(N).map_err(text)?;
    s.synchronize().map_err(text)?;
    s.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .map_err(text)?;
    add(&s, &kernel, [&a, &b], &mut c)?;
    t.join(&s).map_err(text)?;
    t.memcpy_dtod(&c, &mut d).map_err(text)?;
    s.join(&t).map_err(text)?;
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = s.end_capture(flags).map_err(text)?.ok_or("no graph")?;
    graph.upload().map_err(text)?;
    for _ in 0..2 {
        graph.launch().map_err(text)?;
    }
    compare(&s.clone_dtoh(&d).map_err(text)?, &sum())?;
    s.synchronize().map_err(text)
}

fn products(bug: &str) -> Outcome {
    const M: usize = 24;
    const K: usize = 16;
    let context = CudaContext::new(0).map_err(text)?;
    if bug == "tracking of events is off" {
        // SAFETY: this is the bug.
        unsafe { context.disable_event_tracking() };
    }
    let (s, t) = two_streams(&context)?;
    let blas = CudaBlasLT::new(s.clone()).map_err(text)?;
    let host: Vec<bf16> = (0..M * K)
        .map(|i| bf16::from_f32((i % 5) as f32 - 2.0))
        .collect();
    let (a, b) = (
        s.clone_htod(&host).map_err(text)?,
        s.clone_htod(&host).map_err(text)?,
    );
    let bias = s.clone_htod(&host[..M]).map_err(text)?;
    let mut c = s.alloc_zeros::<bf16>(M * M).map_err(text)?;
    let config = MatmulConfig {
        transa: true,
        transb: false,
        transc: false,
        m: M as u64,
        n: M as u64,
        k: K as u64,
        alpha: 1.0,
        lda: K as i64,
        ldb: K as i64,
        beta: 0.0,
        ldc: M as i64,
        stride_a: None,
        stride_b: None,
        stride_c: None,
        stride_bias: None,
        batch_size: None,
    };
    // SAFETY: the sizes are those of the buffers.
    unsafe { blas.matmul(config, &a, &b, &mut c, Some(&bias), Some(&Activation::Relu)) }
        .map_err(text)?;
    let got = t.clone_dtoh(&c).map_err(text)?;
    let row = |i: usize| host[i * K..(i + 1) * K].iter().map(|x| x.to_f32());
    let mut want = Vec::new();
    for column in 0..M {
        for (line, bias) in host[..M].iter().enumerate() {
            let sum: f32 = row(line).zip(row(column)).map(|(a, b)| a * b).sum();
            want.push(bf16::from_f32((sum + bias.to_f32()).max(0.0)));
        }
    }
    compare(&got, &want)
}

/// Two threads with a device each: the second adds what the first computed.
fn ranks(_: &str) -> Outcome {
    use std::sync::mpsc;
    let (first_to_second, from_first) = mpsc::channel();
    let (second_to_first, from_second) = mpsc::channel::<Result<(), String>>();
    let first = move || -> Outcome {
        let (context, kernel) = adder(0)?;
        // SAFETY: the ranks order their work by events.
        unsafe { context.disable_event_tracking() };
        let s = context.new_stream().map_err(text)?;
        let [a, b, mut c] = operands(&s)?;
        add(&s, &kernel, [&a, &b], &mut c)?;
        let ready = s.record_event(None).map_err(text)?;
        let shared = (Arc::new(c), ready);
        let c = Arc::clone(&shared.0);
        first_to_second.send(shared).map_err(text)?;
        let other = from_second.recv().map_err(text)?;
        drop(c);
        s.synchronize().map_err(text)?;
        other
    };
    let second = move || -> Outcome {
        let (context, kernel) = adder(1)?;
        // SAFETY: as above.
        unsafe { context.disable_event_tracking() };
        let s = context.new_stream().map_err(text)?;
        let (c, ready): (Arc<CudaSlice<f32>>, _) = from_first.recv().map_err(text)?;
        let result = (|| {
            s.wait(&ready).map_err(text)?;
            let mine = s.clone_dtod(&*c).map_err(text)?;
            let mut twice = s.alloc_zeros::<f32>(N).map_err(text)?;
            add(&s, &kernel, [&mine, &mine], &mut twice)?;
            let got = s.clone_dtoh(&twice).map_err(text)?;
            let want: Vec<f32> = sum().iter().map(|x| 2.0 * x).collect();
            compare(&got, &want)
        })();
        drop((c, ready));
        second_to_first.send(result.clone()).map_err(text)?;
        result
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = scope.spawn(second);
        let first = first.join().map_err(|_| "the first rank panicked")?;
        second
            .join()
            .map_err(|_| "the second rank panicked")?
            .and(first)
    })
}
