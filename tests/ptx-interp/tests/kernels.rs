//! Good kernels compute what their references do under every schedule, and nothing is reported.

use std::time::Instant;

use ptx_interp::{Class, Module, Options};

use crate::cases::{BASICS, CASES, GEMM, GEMM90, case};
use crate::support::schedules;

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

#[test]
fn statistics_count_classes() {
    // 3 x 4 x 2 products of 16 rows for each of 2 x 2 blocks of 4 warps: 104 is 3.25 stages of 32.
    let module = Module::parse(GEMM).expect("the module");
    let stats = std::cell::Cell::new(None);
    let entry = module.entry("gemm_bf16").expect("the kernel");
    let mut memory = ptx_interp::FlatMemory::new();
    let (a, b, c) = (
        memory.put(&[0; 64 * 64 * 2]),
        memory.put(&[0; 64 * 64 * 2]),
        memory.allocate(64 * 64 * 4),
    );
    let args = [a, b, c]
        .map(crate::support::Arg::Pointer)
        .into_iter()
        .chain([64; 3].map(crate::support::Arg::Int));
    let call = crate::support::Call {
        kernel: entry.name(),
        grid: [1; 3],
        block: [128, 1, 1],
        shared: 0,
        args: args.collect(),
    };
    stats.set(call.run(&module, &mut memory, &Options::default()).ok());
    let stats = stats.get().expect("the launch succeeds");
    assert_eq!(stats.of(Class::Tensor), 4 * 4 * 8);
    assert_eq!(stats.of(Class::Shared), 4 * 4 * (1 + 8));
    assert_eq!(stats.of(Class::Barrier), 4 * 4);
    assert!(stats.lane_instructions > 20 * stats.warp_instructions);
}

/// Prints lane instructions a second; run it with `--ignored --nocapture` to measure.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for name in ["norm_rotary", "transpose", "gemm_bf16", "gemm_wgmma"] {
        let module = Module::parse(case(name).text).expect("the module");
        for races in [true, false] {
            let options = Options {
                races,
                ..Options::default()
            };
            let start = Instant::now();
            let mut runs = 0;
            while start.elapsed().as_secs_f64() < 0.5 {
                assert_eq!((case(name).run)(&module, &options), Ok(true));
                runs += 1;
            }
            println!(
                "{name}, races {races}: {:.2} ms",
                start.elapsed().as_secs_f64() * 1e3 / f64::from(runs)
            );
        }
    }
}
