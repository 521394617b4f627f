//! Kernels with one seeded bug each: a schedule reports it, or the result is wrong.

use xdit_kernels::DType;

use super::{
    FLASH, FMA, WGMMA,
    case::Case,
    launch::{Modules, run},
};
use crate::{
    case::{Kernels, module},
    seed::{Bug, alone},
};

/// What is wrong, the text, the place of the one that is replaced (from 0), and what takes its place.
type Seed = (&'static str, &'static str, usize, &'static str);

/// Of `flash.cu`, in the order of the text.
const TENSOR_BUGS: &[Seed] = &[
    ("the last tile of keys is left out", ", 63;", 0, ", 62;"),
    (
        "queries behind the last are read",
        "setp.ge.s32",
        5,
        "setp.gt.s32",
    ),
    ("other queries' places", "xor.b32", 0, "or.b32"),
    (
        "q and the first keys are not waited for",
        "cp.async.commit_group;",
        0,
        "",
    ),
    ("a slot lies in another", ", 24576;", 0, ", 20480;"),
    (
        "keys are not waited for",
        "cp.async.wait_group 1;",
        0,
        "cp.async.wait_group 2;",
    ),
    (
        "keys of other threads are not waited for",
        "bar.sync",
        0,
        "// ",
    ),
    ("the next tile is one too far", ", 64;", 1, ", 65;"),
    (
        "the next keys are of no group",
        "cp.async.commit_group;",
        2,
        "",
    ),
    (
        "a fragment of keys of other columns",
        "xor.b32",
        4,
        "or.b32",
    ),
    ("the mask of the last tile", "setp.gt.s32", 2, "setp.lt.s32"),
    ("the mask is turned around", "setp.ne.s16", 4, "setp.eq.s16"),
    ("the votes of other columns", "shr.u32", 4, "shl.b32"),
    ("references do not grow", "0f41000000", 0, "0f7F000000"),
    (
        "the maximum of one thread",
        "shfl.sync.bfly.b32",
        0,
        "shfl.sync.idx.b32",
    ),
    (
        "sums are rescaled if all rows grow",
        "vote.sync.any.pred",
        0,
        "vote.sync.all.pred",
    ),
    ("sums are not rescaled", "ex2.approx.ftz.f32", 0, "abs.f32"),
    (
        "weights are not exponents",
        "ex2.approx.ftz.f32",
        5,
        "abs.f32",
    ),
    (
        "values are not waited for",
        "cp.async.wait_group 1;",
        1,
        "cp.async.wait_group 2;",
    ),
    (
        "keys are overwritten while others read them",
        "bar.sync",
        1,
        "// ",
    ),
    (
        "the next values are of no group",
        "cp.async.commit_group;",
        3,
        "",
    ),
    ("values in rows", "x4.trans.shared", 0, "x4.shared"),
    ("values of other columns", "xor.b32", 12, "or.b32"),
    (
        "the sum of one thread",
        "shfl.sync.bfly.b32",
        8,
        "shfl.sync.idx.b32",
    ),
    (
        "the running sum of another row",
        "shfl.sync.idx.b32",
        0,
        "shfl.sync.down.b32",
    ),
    (
        "rows behind the last are written",
        "setp.ge.s32",
        29,
        "setp.gt.s32",
    ),
];

/// Of `flash.sm_90a.cu`, in the order of the text but for the waits.
const WGMMA_BUGS: &[Seed] = &[
    (
        "queries are overwritten while others read them",
        WAIT,
        0,
        "",
    ),
    ("keys are overwritten while others read them", WAIT, 2, ""),
    ("values are overwritten while others read them", WAIT, 3, ""),
    ("queries are read while they come", WAIT, 4, ""),
    ("the first keys are read while they come", WAIT, 5, ""),
    ("keys are read while they come", WAIT, 6, ""),
    ("values are read while they come", WAIT, 7, ""),
    ("the last values are read while they come", WAIT, 8, ""),
    ("a slot is empty before all warps say so", ", 8;", 0, ", 7;"),
    (
        "barriers are used before they are there",
        "bar.sync",
        0,
        "// ",
    ),
    ("the phase of the slot of queries", "xor.b32", 0, "and.b32"),
    ("the phase of empty slots of keys", "xor.b32", 3, "or.b32"),
    (
        "fewer bytes are expected than come",
        ", 16384;",
        2,
        ", 8192;",
    ),
    ("the phase of empty slots of values", "xor.b32", 5, "or.b32"),
    ("the phase of full slots of keys", "xor.b32", 9, "or.b32"),
    ("the phase of full slots of values", "xor.b32", 11, "or.b32"),
    (
        "registers are not ready",
        "wgmma.fence.sync.aligned;",
        0,
        "",
    ),
    (
        "another swizzle of queries",
        SWIZZLED,
        0,
        "-9223371761977327616",
    ),
    (
        "rows of keys in other groups of eight",
        SWIZZLED,
        1,
        "4611686155866341376",
    ),
    (
        "another swizzle of values",
        SWIZZLED,
        28,
        "-9223371761977327616",
    ),
    (
        "the first scores are read too early",
        "wgmma.wait_group.sync.aligned 0;",
        0,
        "",
    ),
    ("the mask of the last keys", "setp.le.s32", 0, "setp.gt.s32"),
    (
        "scores are added to those before",
        "setp.ne.b32 p, 0, 0;",
        1,
        "setp.ne.b32 p, 1, 0;",
    ),
    (
        "scores are of the group of values",
        "wgmma.commit_group.sync.aligned;",
        1,
        "",
    ),
    ("values in rows", "p, 1, 1, 1;", 0, "p, 1, 1, 0;"),
    ("the turn is not passed", "bar.arrive", 1, "// "),
    (
        "scores are read too early",
        "wait_group.sync.aligned 1;",
        0,
        "wait_group.sync.aligned 2;",
    ),
    (
        "nobody tells that keys are read",
        "mbarrier.arrive.shared",
        2,
        "// ",
    ),
    (
        "nobody tells that queries are read",
        "mbarrier.arrive.shared",
        3,
        "// ",
    ),
    (
        "weights change too early",
        "wait_group.sync.aligned 0;",
        1,
        "wait_group.sync.aligned 1;",
    ),
    (
        "nobody tells that values are read",
        "mbarrier.arrive.shared",
        4,
        "// ",
    ),
    (
        "results are read too early",
        "wgmma.wait_group.sync.aligned 0;",
        2,
        "",
    ),
];

/// The end of a wait for an mbarrier.
const WAIT: &str = "@!p bra AGAIN;";

/// The upper half of descriptors of matrices: rows of 128 bytes.
const SWIZZLED: &str = "4611686293305294848";

/// Of `fma.cu`.
const PLAIN_BUGS: &[Seed] = &[
    (
        "weights are read while the next keys come",
        "bar.sync",
        0,
        "// ",
    ),
    ("columns are read while they come", "bar.sync", 1, "// "),
    (
        "values are overwritten while others read them",
        "bar.sync",
        2,
        "// ",
    ),
    ("values are read while they come", "bar.sync", 3, "// "),
    (
        "the maximum of some threads",
        "shfl.sync.bfly.b32",
        0,
        "shfl.sync.idx.b32",
    ),
    (
        "the sum of some threads",
        "shfl.sync.bfly.b32",
        16,
        "shfl.sync.idx.b32",
    ),
    (
        "the running sum of another row",
        "shfl.sync.idx.b32",
        0,
        "shfl.sync.down.b32",
    ),
];

/// The kernel with the bug, alone.
fn seeded(text: &str, kernel: &str, (_, from, place, to): Seed) -> Kernels {
    let bug = Bug {
        kernel,
        from,
        place: Some(place),
        to,
    };
    module(&bug.seeded(&alone(text, kernel)))
}

/// Whether one of the cases finds it under a schedule.
fn is_found(cases: &[Case], modules: &Modules) -> bool {
    cases.iter().any(|case| {
        let mut schedules = modules.of(case).schedules().into_iter();
        schedules.any(|options| run(case, modules, &options).is_err())
    })
}

#[test]
fn seeded_bugs_are_found() {
    let case = |dtype| Case {
        split: Some(193),
        key_mask: true,
        spread: 6.0,
        // One tile of queries.
        ..Case::new(dtype, if dtype == DType::F32 { 20 } else { 67 }, 260, 64)
    };
    let empty = || module(".version 8.0\n.target sm_80\n.address_size 64\n");
    let mut missed = Vec::new();
    for &bug in TENSOR_BUGS {
        let flash = seeded(FLASH, "flash_bf16_d64", bug);
        let modules = Modules {
            flash,
            wgmma: empty(),
            fma: empty(),
        };
        let unmasked = Case {
            key_mask: false,
            ..case(DType::BF16)
        };
        // Weights relative to a wrong maximum are infinite.
        let steep = Case {
            spread: 400.0,
            ..unmasked.clone()
        };
        if !is_found(&[case(DType::BF16), unmasked, steep], &modules) {
            missed.push(bug.0);
        }
    }
    let ring = Case {
        hopper: true,
        h_kv: 2,
        ..Case::new(DType::BF16, 66, 900, 64)
    };
    for &bug in WGMMA_BUGS {
        let modules = Modules {
            flash: empty(),
            wgmma: seeded(WGMMA, "flash_wgmma_bf16_d64", bug),
            fma: empty(),
        };
        if !is_found(std::slice::from_ref(&ring), &modules) {
            missed.push(bug.0);
        }
    }
    for &bug in PLAIN_BUGS {
        let fma = seeded(FMA, "flash_f32", bug);
        let modules = Modules {
            flash: empty(),
            wgmma: empty(),
            fma,
        };
        if !is_found(&[case(DType::F32)], &modules) {
            missed.push(bug.0);
        }
    }
    // Without a bug nothing is found.
    let modules = &*super::MODULES;
    for case in [
        case(DType::BF16),
        case(DType::F32),
        ring,
        Case {
            spread: 400.0,
            ..case(DType::BF16)
        },
    ] {
        assert!(!is_found(&[case], modules));
    }
    assert!(missed.is_empty(), "nobody noticed: {}", missed.join("; "));
}
