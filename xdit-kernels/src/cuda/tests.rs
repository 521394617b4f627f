//! Devices, memory and launches on a GPU, or on the virtual one. Where there is none, each of these tests fails: they are run
//! by name (`cargo test -p xdit-kernels --features cuda cuda::tests -- --ignored`).

use super::{Args, LaunchShape, PtxModule, UPLOAD_PIECE};
use crate::{DType, Device, MappedFile, Tensor, TensorMut, View, layout, testing::gpu};

const ADD_PTX: &str = ".version 8.0
.target sm_80
.address_size 64

.visible .entry add_u32(.param .u64 x, .param .u64 out, .param .u32 n, .param .u32 by)
{
    .reg .pred %p<2>;
    .reg .b32 %r<9>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [out];
    ld.param.u32 %r1, [n];
    ld.param.u32 %r2, [by];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r6, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r6, %r1;
    @%p1 bra $L__BB0_2;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.u32 %rd5, %r6, 4;
    add.s64 %rd6, %rd3, %rd5;
    add.s64 %rd7, %rd4, %rd5;
    ld.global.u32 %r7, [%rd6];
    add.s32 %r8, %r7, %r2;
    st.global.u32 [%rd7], %r8;
$L__BB0_2:
    ret;
}
";

/// Adds a number to each of some u32.
static ADD: PtxModule = PtxModule {
    name: "add",
    sm_80: ADD_PTX,
    sm_90a: None,
};

fn numbers(n: u32) -> Vec<u32> {
    (0..n).collect()
}

#[test]
#[ignore = "needs a GPU"]
fn tensors_go_to_the_gpu_and_back() {
    let device = gpu();
    let x = Tensor::from_slice(&numbers(1000), [10, 100], &device).unwrap();
    assert_eq!(x.device(), &device);
    assert_eq!(x.to_vec_blocking::<u32>().unwrap(), numbers(1000));
    let part = x.narrow(0, 3, 2).unwrap();
    assert_eq!(part.to_vec_blocking::<u32>().unwrap(), numbers(500)[300..]);
    assert_eq!(device.host_reads(), 2);
    let host = x.to_device(&Device::cpu()).unwrap();
    assert_eq!(host.host_slice_blocking::<u32>().unwrap(), numbers(1000));
    let bytes = x.host_bytes_blocking().unwrap();
    assert_eq!(bytes, host.host_bytes_blocking().unwrap());
    let back = host.to_device(&device).unwrap().to_device(&device.fork());
    assert_eq!(
        back.unwrap().to_vec_blocking::<u32>().unwrap(),
        numbers(1000)
    );
    let zeros = Tensor::zeros([7], DType::BF16, &device).unwrap();
    assert_eq!(zeros.to_vec_blocking::<f32>().unwrap(), [0.0; 7]);
    let empty = Tensor::from_slice::<f32>(&[], [0, 3], &device).unwrap();
    assert_eq!(empty.to_vec_blocking::<f32>().unwrap(), [0.0; 0]);
}

#[test]
#[ignore = "needs a GPU"]
fn host_memory_of_a_gpu_is_an_error_that_says_what_to_do() {
    let device = gpu();
    let x = Tensor::zeros([4], DType::F32, &device).unwrap();
    let error = x.host_slice_blocking::<f32>().unwrap_err().to_string();
    assert!(
        error.contains("cuda:0; copy them by to_vec_blocking"),
        "{error}"
    );
    let error = View::from_slice(&[1f32], [1], &device)
        .unwrap_err()
        .to_string();
    assert!(error.contains("Tensor::from_slice"), "{error}");
    let mut out = TensorMut::zeros([4], DType::F32, &device).unwrap();
    let host = Tensor::zeros([4], DType::F32, &Device::cpu()).unwrap();
    let error = layout::copy_into(&host, out.view_mut())
        .unwrap_err()
        .to_string();
    assert!(error.contains("one device"), "{error}");
}

#[test]
#[ignore = "needs a GPU"]
fn mapped_files_and_constants_are_copied_to_the_gpu() {
    let device = gpu();
    let path = std::env::temp_dir().join(format!("xdit-kernels-cuda-{}", std::process::id()));
    let bytes: Vec<u8> = numbers(64).into_iter().flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &bytes).unwrap();
    let file = MappedFile::open(&path).unwrap();
    let x = Tensor::from_mapped(&file, 16, [4, 5], DType::U32, &device).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(x.device(), &device);
    assert_eq!(x.to_vec_blocking::<u32>().unwrap(), numbers(24)[4..]);
    // At an odd address too.
    static BYTES: [u8; 9] = [0, 1, 0, 0, 0, 2, 0, 0, 0];
    let x = Tensor::from_static(&BYTES, 1, [2], DType::U32, &device).unwrap();
    assert_eq!(x.to_vec_blocking::<u32>().unwrap(), [1, 2]);
}

/// Adds `by` to each element of x, on the queue of the output.
fn add(x: &Tensor, by: u32, device: &Device) -> Tensor {
    // SAFETY: the kernel writes every element.
    let mut out = unsafe { TensorMut::uninit("add", x.shape(), x.dtype(), device).unwrap() };
    let mut args = Args::new();
    args.push(x.view().ptr());
    args.push(out.view_mut().ptr());
    args.push(x.numel() as u32);
    args.push(by);
    let shape = LaunchShape::rows(x.numel().div_ceil(128) as u32, 128);
    // SAFETY: the arguments are those of the kernel; both tensors have as many u32.
    unsafe { (device.expect_cuda()).launch("add", &ADD, "add_u32", shape, &args) }.unwrap();
    out.freeze()
}

#[test]
#[ignore = "needs a GPU"]
fn kernels_run_in_the_order_of_their_queue_and_events_order_queues() {
    let compute = gpu();
    let send = compute.fork();
    assert_eq!(send, compute);
    let x = Tensor::from_slice(&numbers(1000), [1000], &compute).unwrap();
    let y = add(&add(&x, 1, &compute), 2, &compute);
    send.wait(&compute.record());
    let z = add(&y, 3, &send);
    compute.wait(&send.record());
    let mut joint = TensorMut::zeros([2, 1000], DType::U32, &compute).unwrap();
    for (row, part) in [&y, &z].into_iter().enumerate() {
        let part = part.reshape([1, 1000]).unwrap();
        layout::copy_into(&part, joint.view_mut().narrow(0, row, 1).unwrap()).unwrap();
    }
    let expected: Vec<u32> = (3..1003).chain(6..1006).collect();
    assert_eq!(joint.freeze().to_vec_blocking::<u32>().unwrap(), expected);
    compute.synchronize().unwrap();
    // The processor's queue is this thread.
    Device::cpu().wait(&send.record());
}

#[test]
#[ignore = "needs a GPU"]
fn devices_of_two_calls_are_two_devices() {
    let (one, two) = (gpu(), gpu());
    assert_ne!(one, two);
    let x = Tensor::from_slice(&numbers(300), [300], &one).unwrap();
    let y = add(&x, 5, &one).to_device(&two).unwrap();
    assert_eq!(y.device(), &two);
    let z = add(&y, 1, &two);
    assert_eq!(
        z.to_vec_blocking::<u32>().unwrap(),
        (6..306).collect::<Vec<_>>()
    );
}

#[test]
#[ignore = "needs two GPUs"]
fn tensors_go_from_one_gpu_to_another_beside_what_both_compute() {
    let one = gpu();
    let two = Device::cuda(1).unwrap_or_else(|error| panic!("this test needs two GPUs: {error}"));
    let (leave, arrive) = (one.fork(), two.fork());
    for round in 0..4 {
        let x = Tensor::from_slice(&numbers(700), [700], &one).unwrap();
        let y = add(&x, 1, &one);
        leave.wait(&one.record());
        let there = y.to_device(&leave).unwrap().to_device(&arrive).unwrap();
        // Its memory is written again, after the copy.
        drop(y);
        let z = add(&x, 9, &one);
        two.wait(&arrive.record());
        let sum = add(&there.to_device(&two).unwrap(), round, &two);
        drop(there);
        assert_eq!(
            sum.to_vec_blocking::<u32>().unwrap(),
            numbers(701 + round)[1 + round as usize..]
        );
        assert_eq!(z.to_vec_blocking::<u32>().unwrap(), numbers(709)[9..]);
    }
    // More than both pieces of the host's memory, should it go through them.
    let bytes: Vec<u8> = (0..(9 << 20) + 5).map(|i: u32| (i % 251) as u8).collect();
    let x = Tensor::from_slice(&bytes, [bytes.len()], &one).unwrap();
    let back = x.to_device(&two).unwrap().to_device(&one).unwrap();
    assert!(back.to_vec_blocking::<u8>().unwrap() == bytes);
}

#[test]
#[ignore = "needs a GPU"]
fn a_launch_with_other_arguments_than_the_kernels_is_refused() {
    let device = gpu();
    let queue = device.expect_cuda();
    if queue.context().driver.cuFuncGetParamInfo.is_none() {
        return;
    }
    let x = Tensor::zeros([4], DType::U32, &device).unwrap();
    let mut args = Args::new();
    args.push(x.view().ptr());
    args.push(4u64);
    let shape = LaunchShape::rows(1, 32);
    // SAFETY: the launch is refused.
    let error = unsafe { queue.launch("add", &ADD, "add_u32", shape, &args) }.unwrap_err();
    assert_eq!(
        error.to_string(),
        "add: the kernel add_u32 takes parameters of 8, 8, 4, 4 bytes, and was given 8, 8"
    );
    // SAFETY: there is no such kernel.
    let error = unsafe { queue.launch("add", &ADD, "sub_u32", shape, &args) }.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the kernels add have no sub_u32"),
        "{error}"
    );
}

#[test]
#[ignore = "needs a GPU"]
fn ptx_that_the_driver_refuses_is_an_error_with_the_drivers_reason() {
    static BROKEN: PtxModule = PtxModule {
        name: "broken",
        sm_80: ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry broken() { nonsense; }\n",
        sm_90a: None,
    };
    let device = gpu();
    let (shape, args) = (LaunchShape::rows(1, 32), Args::new());
    // SAFETY: the module does not load.
    let error = unsafe { (device.expect_cuda()).launch("test", &BROKEN, "broken", shape, &args) };
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("does not compile the kernels broken (sm_80) for cuda:0"),
        "{error}"
    );
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpu_that_is_not_there_is_an_error_that_counts_those_that_are() {
    let error = Device::cuda(63).unwrap_err().to_string();
    assert!(
        error.starts_with("device: there is no GPU 63; NVIDIA's driver finds"),
        "{error}"
    );
}

#[test]
#[ignore = "needs a GPU"]
fn large_tensors_go_through_both_pinned_buffers() {
    let device = gpu();
    // Two and a half pieces, and one byte more than one.
    for n in [(10 << 20) + 3, (4 << 20) + 1] {
        let bytes: Vec<u8> = (0..n).map(|i: u32| (i % 251) as u8).collect();
        let x = Tensor::from_slice(&bytes, [bytes.len()], &device).unwrap();
        let y = Tensor::from_slice(&bytes, [bytes.len()], &device).unwrap();
        assert!(x.to_vec_blocking::<u8>().unwrap() == bytes, "{n}");
        assert!(y.to_vec_blocking::<u8>().unwrap() == bytes, "{n}");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn memory_is_used_again_in_the_order_of_its_queue() {
    let device = gpu();
    let x = Tensor::from_slice(&numbers(1000), [1000], &device).unwrap();
    let first = add(&x, 1, &device);
    let place = first.view().ptr();
    let second = add(&first, 1, &device);
    // The kernel that reads it may still run.
    drop(first);
    let third = add(&second, 1, &device);
    assert_eq!(third.view().ptr(), place);
    assert_eq!(third.to_vec_blocking::<u32>().unwrap(), numbers(1003)[3..]);
    let used = device.cuda_memory().unwrap();
    assert_eq!(used.in_use, 3 * 4096);
    assert!(
        used.peak == used.in_use && used.held >= used.peak,
        "{used:?}"
    );
    drop((x, second, third));
    device.trim_cuda_memory().unwrap();
    let used = device.cuda_memory().unwrap();
    assert_eq!((used.in_use, used.peak, used.held), (0, 3 * 4096, 0));
    device.reset_cuda_peak();
    assert_eq!(device.cuda_memory().unwrap().peak, 0);
}

#[test]
#[ignore = "needs a GPU"]
fn a_tensor_may_be_dropped_while_another_queue_reads_it() {
    let compute = gpu();
    let send = compute.fork();
    for round in 0..20 {
        let x = Tensor::from_slice(&numbers(1000), [1000], &compute).unwrap();
        let y = add(&x, 1, &compute);
        send.wait(&compute.record());
        let sent = add(&y, round, &send);
        // Its memory is written by the next kernel of its own queue, which waits for the other queue's read.
        drop(y);
        let z = add(&x, 50, &compute);
        assert_eq!(
            sent.to_vec_blocking::<u32>().unwrap(),
            numbers(1001 + round)[1 + round as usize..]
        );
        assert_eq!(z.to_vec_blocking::<u32>().unwrap(), numbers(1050)[50..]);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn out_of_memory_is_an_error_with_the_numbers_and_not_the_end() {
    let device = gpu();
    let kept = Tensor::zeros([1 << 20], DType::F32, &device).unwrap();
    let error = Tensor::zeros([1 << 40], DType::F32, &device)
        .unwrap_err()
        .to_string();
    let start = "out of memory on cuda:0: zeros asked for 4194304.0 MiB; the driver has ";
    assert!(error.starts_with(start), "{error}");
    assert!(error.contains("tensors use 4.0 MiB"), "{error}");
    assert_eq!(kept.to_vec_blocking::<f32>().unwrap(), vec![0.0; 1 << 20]);
}

#[test]
#[ignore = "needs a GPU"]
fn where_the_driver_has_no_more_free_memory_of_other_queues_is_used() {
    let device = gpu();
    let (free, _) = device.expect_cuda().context().memory("test").unwrap();
    // Two of these do not fit.
    let n = free / 5 * 3;
    let fork = device.fork();
    for queue in [&device, &fork, &device] {
        let x = Tensor::zeros([n], DType::U8, queue).unwrap();
        assert_eq!(x.device(), &device);
    }
    // Smaller tensors, whose segments have another size.
    let parts: Vec<Tensor> = (0..3)
        .map(|_| Tensor::zeros([free / 5], DType::U8, &fork).unwrap())
        .collect();
    drop(parts);
    assert!(Tensor::zeros([n], DType::U8, &device).is_ok());
}

/// Nobody has waited for the copy of a tensor when the next one is prepared, also where the processor converts it.
#[test]
#[ignore = "needs a GPU"]
fn the_next_tensor_is_prepared_while_the_last_is_copied() {
    let host = Device::cpu();
    for dtype in [DType::F32, DType::BF16] {
        let device = Device::cuda(0).unwrap();
        let in_flight = || device.expect_cuda().copies_in_flight();
        let values: Vec<f32> = (0..250).map(|x| x as f32).collect();
        let view = View::from_slice(&values, [values.len()], &host).unwrap();
        let first = Tensor::uploaded_as(view, dtype, &device).unwrap();
        assert_eq!(in_flight(), 1, "{dtype}");
        let second = Tensor::uploaded_as(view, dtype, &device).unwrap();
        assert_eq!(in_flight(), 2, "{dtype}");
        for copied in [first, second] {
            assert_eq!(copied.dtype(), dtype);
            let copied = copied.to_dtype(DType::F32).unwrap();
            assert_eq!(copied.to_vec_blocking::<f32>().unwrap(), values);
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_tensor_of_many_pieces_is_converted_on_its_way() {
    let (host, device) = (Device::cpu(), Device::cuda(0).unwrap());
    let count = 3 * (UPLOAD_PIECE / 2) + 7;
    let values: Vec<f32> = (0..count).map(|x| (x % 251) as f32).collect();
    let view = View::from_slice(&values, [count], &host).unwrap();
    let copied = Tensor::uploaded_as(view, DType::BF16, &device).unwrap();
    let back = copied.to_vec_blocking::<half::bf16>().unwrap();
    assert_eq!(back.len(), count);
    assert!(back.iter().zip(&values).all(|(a, b)| a.to_f32() == *b));
}
