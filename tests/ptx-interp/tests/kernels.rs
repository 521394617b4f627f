//! Good kernels compute what their references do under every schedule, and nothing is reported.

use std::time::Instant;

use ptx_interp::{Class, FlatMemory, Module, Options, Stats};

use crate::cases::{BASICS, CASES, GEMM, GEMM90};
use crate::support::{Arg, Call, run_on, schedules};

#[test]
fn every_kernel_under_every_schedule() {
    for case in CASES {
        let module = Module::parse(case.text).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let schedules = schedules(10);
        assert_eq!(schedules.len(), 24);
        for options in schedules {
            match (case.run)(&module, &options) {
                Ok(true) => {}
                Ok(false) => panic!("{}: a wrong result with {options:?}", case.name),
                Err(report) => panic!("{report} with {options:?}"),
            }
        }
    }
}

#[test]
fn everything_that_nvrtc_emits_is_known() {
    let module =
        Module::parse(include_str!("../kernels/emitted.ptx")).unwrap_or_else(|e| panic!("{e}"));
    let entry = module.entry("emitted").expect("the kernel");
    assert!(entry.instructions() > 500);
    assert_eq!(module.target(), "sm_80");
    assert_eq!(module.version(), (8, 0));
}

#[test]
fn entries_tell_what_the_driver_tells() {
    let module = Module::parse(GEMM90).expect("the module");
    let entry = module.entry("gemm_wgmma").expect("the kernel");
    let params: Vec<(usize, usize)> = entry.params().iter().map(|p| (p.offset, p.size)).collect();
    assert_eq!(params, [(0, 128), (128, 128), (256, 128), (384, 4)]);
    assert_eq!(entry.max_threads(), Some(256));
    assert_eq!(entry.static_shared(), 0);
    let module = Module::parse(GEMM).expect("the module");
    assert_eq!(
        module
            .entry("gemm_bf16")
            .expect("the kernel")
            .static_shared(),
        2 * 2 * 64 * 40 * 2
    );
    let module = Module::parse(BASICS).expect("the module");
    let scale = module
        .variables()
        .iter()
        .find(|v| v.name == "scale")
        .expect("the variable");
    assert!(scale.constant && scale.size == 16 && scale.initial[4..8] == 0.5f32.to_le_bytes());
}

/// Multiplies two square matrices of zeros.
fn square_product(module: &Module, options: &Options, n: usize) -> Stats {
    let mut memory = FlatMemory::new();
    let zeros = vec![0; n * n * 2];
    let addresses = [
        memory.put(&zeros),
        memory.put(&zeros),
        memory.allocate(n * n * 4),
    ];
    let mut args = addresses.map(Arg::Pointer).to_vec();
    args.extend([Arg::Int(n as i32), Arg::Int(n as i32), Arg::Int(n as i32)]);
    let blocks = n as u32 / 64;
    let call = Call {
        kernel: "gemm_bf16",
        grid: [blocks, blocks, 1],
        block: [128, 1, 1],
        shared: 0,
        args,
    };
    call.run(module, &mut memory, options)
        .expect("the kernel is right")
}

#[test]
fn statistics_count_classes() {
    let module = Module::parse(GEMM).expect("the module");
    let stats = square_product(&module, &Options::default(), 64);
    // One block of 4 warps, 4 steps of 16 along k, 8 tiles of 8 columns.
    assert_eq!(stats.of(Class::Tensor), 4 * 4 * 8);
    assert_eq!(stats.of(Class::Shared), 4 * 4 * (1 + 8));
    assert_eq!(stats.of(Class::Barrier), 4 * 4);
    assert!(stats.lane_instructions > 20 * stats.warp_instructions);
}

/// Prints the time of each kernel; run it with `--ignored --nocapture` to measure.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for case in CASES {
        let module = Module::parse(case.text).expect("the module");
        for races in [true, false] {
            let options = Options {
                races,
                ..Options::default()
            };
            let start = Instant::now();
            let mut runs = 0;
            while start.elapsed().as_secs_f64() < 0.2 {
                assert_eq!((case.run)(&module, &options), Ok(true));
                runs += 1;
            }
            let time = start.elapsed().as_secs_f64() * 1e3 / f64::from(runs);
            println!("{}, races {races}: {time:.2} ms", case.name);
        }
    }
    let body = "bar.sync 0; ".repeat(50);
    let start = Instant::now();
    run_on(1024, 1, &body, &Options::default()).expect("the kernel is right");
    let time = start.elapsed().as_secs_f64() * 1e3 / 50.0;
    println!("a barrier of 1024 threads: {time:.2} ms");
    let module = Module::parse(GEMM).expect("the module");
    for races in [true, false] {
        let start = Instant::now();
        let stats = square_product(
            &module,
            &Options {
                races,
                ..Options::default()
            },
            128,
        );
        let lanes = stats.lane_instructions as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!("a product of 128 x 128 x 128, races {races}: {lanes:.0} M lane instructions/s");
    }
}
