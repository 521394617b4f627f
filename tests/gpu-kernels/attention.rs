//! Attention: `flash.cu`, `flash.sm_90a.cu` and `fma.cu`.

mod bugs;
mod case;
mod data;
mod launch;

use std::sync::LazyLock;

use xdit_kernels::DType;

use crate::case::module;
use case::Case;
use launch::{Modules, run};

const FLASH: &str = include_str!("../../xdit-kernels/src/attention/flash.sm_80.ptx");
const WGMMA: &str = include_str!("../../xdit-kernels/src/attention/flash.sm_90a.ptx");
const FMA: &str = include_str!("../../xdit-kernels/src/attention/fma.sm_80.ptx");
const HALVES: [DType; 2] = [DType::BF16, DType::F16];

static MODULES: LazyLock<Modules> = LazyLock::new(|| Modules {
    flash: module(FLASH),
    wgmma: module(WGMMA),
    fma: module(FMA),
});

/// Under the first schedule, or under all; on a GPU of capability 8.0 and of 9.0 where that makes a difference.
fn check(cases: &[Case], every_schedule: bool) {
    let hopper = cases.iter().map(|case| Case {
        hopper: true,
        ..case.clone()
    });
    let hopper = hopper.filter(Case::on_wgmma).collect::<Vec<_>>();
    for case in cases.iter().chain(&hopper) {
        let schedules = MODULES.of(case).schedules();
        let count = if every_schedule { schedules.len() } else { 1 };
        for options in &schedules[..count] {
            if let Err(what) = run(case, &MODULES, options) {
                panic!("{} under {options:?}: {what}\n{case:?}", case.kernel());
            }
        }
    }
}

#[test]
fn every_schedule_gives_the_processors_result() {
    let of = |dtype| move |d| Case::new(dtype, 65, 130, d);
    let mut cases = [32, 64, 96, 128].map(of(DType::BF16)).to_vec();
    // The kernels of f16 are those of bf16 but for the conversions.
    cases.extend([of(DType::F16)(64), of(DType::F32)(64)]);
    check(&cases, true);
}

/// More tiles of keys than slots, several units in a block, and the first of them with one tile.
#[test]
fn rings_of_capability_9() {
    let of = |dtype, lk, d| Case {
        hopper: true,
        h_kv: 2,
        group: 2,
        ..Case::new(dtype, 130, lk, d)
    };
    check(&[of(DType::BF16, 650, 64), of(DType::F16, 128, 128)], true);
    check(&[of(DType::BF16, 1030, 96), of(DType::F16, 520, 32)], false);
}

#[test]
fn ragged_lengths() {
    let lengths = [1, 2, 63, 64, 65, 127, 129, 130, 257];
    let cases: Vec<Case> = lengths
        .into_iter()
        .zip(lengths.into_iter().rev())
        .flat_map(|(lq, lk)| [DType::BF16, DType::F32].map(|dtype| Case::new(dtype, lq, lk, 64)))
        .collect();
    check(&cases, false);
}

#[test]
fn head_dims() {
    let mut cases = Vec::new();
    for dtype in HALVES {
        cases.extend([8, 16, 40, 56, 72, 80, 88, 104, 120].map(|d| Case::new(dtype, 40, 70, d)));
    }
    // Not of whole chunks, or longer than the tensor units' kernels take.
    cases.extend([1, 33, 130].map(|d| Case::new(DType::BF16, 20, 70, d)));
    cases.extend([1, 8, 33, 88, 128, 129, 300].map(|d| Case::new(DType::F32, 20, 70, d)));
    check(&cases, false);
}

#[test]
fn masks_and_heads() {
    let mut cases = Vec::new();
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for (causal, key_mask) in [(true, false), (false, true), (true, true)] {
            cases.push(Case {
                b: 2,
                h_kv: 2,
                group: 2,
                causal,
                key_mask,
                poison: key_mask && !causal,
                ..Case::new(dtype, 40, 140, 32)
            });
            // Causal with fewer keys than queries, and the other way round.
            cases.push(Case {
                causal,
                key_mask,
                ..Case::new(dtype, 200, 66, 64)
            });
        }
        cases.push(Case {
            h_kv: 3,
            group: 2,
            ..Case::new(dtype, 5, 66, 64)
        });
    }
    check(&cases, false);
    let causal = Case {
        causal: true,
        key_mask: true,
        ..Case::new(DType::BF16, 130, 130, 32)
    };
    check(&[causal], true);
}

#[test]
fn biases_and_scales() {
    let mut cases = Vec::new();
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        // The bias is f32 whatever the dtype.
        let shared: &[[bool; 3]] = match dtype {
            DType::F32 => &[[false; 3], [true, false, false], [true, true, true]],
            _ => &[[false; 3]],
        };
        cases.extend(shared.iter().map(|one| Case {
            b: 2,
            h_kv: 2,
            bias: Some(*one),
            ..Case::new(dtype, 5, 70, 64)
        }));
        // Two tiles of queries.
        cases.push(Case {
            bias: Some([false; 3]),
            ..Case::new(dtype, 66, 70, 64)
        });
        for scale in [-0.3, 0.0, 0.01, 1.0] {
            cases.push(Case {
                scale: Some(scale),
                key_mask: true,
                ..Case::new(dtype, 20, 70, 32)
            });
        }
    }
    check(&cases, false);
}

#[test]
fn maxima_that_grow() {
    let spreads = [3.0, 30.0].into_iter();
    let cases: Vec<Case> = spreads
        .flat_map(|spread| {
            [DType::BF16, DType::F16, DType::F32].map(|dtype| Case {
                spread,
                ..Case::new(dtype, 20, 400, 64)
            })
        })
        .collect();
    check(&cases, false);
}

#[test]
fn keys_added_by_a_second_launch() {
    let mut cases = Vec::new();
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for (split, key_mask, out_f32) in [
            (64, false, true),
            (70, true, false),
            (1, true, true),
            (129, false, false),
        ] {
            // Of two batch entries with a mask, the second has no key.
            let (b, h_kv) = if key_mask { (2, 1) } else { (1, 2) };
            cases.push(Case {
                b,
                h_kv,
                split: Some(split),
                key_mask,
                out_f32,
                spread: 3.0,
                ..Case::new(dtype, 70, 130, 88)
            });
        }
        // Slices of the output, each merged by itself.
        cases.push(Case {
            split: Some(40),
            out_f32: true,
            ..Case::new(dtype, 20, 66, 140)
        });
    }
    check(&cases, false);
    check(&cases[..1], true);
}

#[test]
fn plain_kernels_of_16_bits() {
    let cases: Vec<Case> = HALVES
        .into_iter()
        .map(|dtype| Case {
            plain: true,
            group: 2,
            ..Case::new(dtype, 20, 70, 64)
        })
        .collect();
    check(&cases, false);
}
