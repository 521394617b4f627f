//! Small kernels that wait wrongly, beside the same ones that do it right.

use ptx_interp::{Completion, Finding, Options};

use crate::support::{finding, run_on};

#[test]
fn divergence() {
    let half = "setp.lt.u32 %p0, %r2, 16; ";
    let bad = format!("{half} @%p0 bra SKIP; shfl.sync.bfly.b32 %r7, %r1, 1, 31, -1;\nSKIP:");
    assert_eq!(finding(32, &bad), Some(Finding::Divergence));
    assert_eq!(finding(32, &bad.replace("-1;", "0xffff0000;")), None);
    assert_eq!(
        finding(32, "shfl.sync.bfly.b32 %r7, %r1, 1, 31, 0xffff;"),
        Some(Finding::Divergence)
    );
    let outside = bad.replace(
        "bfly.b32 %r7, %r1, 1, 31, -1",
        "idx.b32 %r7, %r1, 0, 31, 0xffff0000",
    );
    assert_eq!(finding(32, &outside), Some(Finding::Divergence));
    assert_eq!(
        finding(
            32,
            &format!("{half} @%p0 bra SKIP; bar.sync 0;\nSKIP: bar.sync 0;")
        ),
        Some(Finding::Divergence)
    );
    assert_eq!(
        finding(32, &format!("{half} @%p0 exit; mov.u32 %r7, 0; {LOAD}")),
        Some(Finding::Divergence)
    );
    assert_eq!(
        finding(
            32,
            &format!("st.shared.v4.u32 [%r8], {{%r1, %r1, %r1, %r1}}; bar.warp.sync -1; {LOAD}")
                .replace(
                    "st.shared",
                    "shl.b32 %r8, %r1, 4; and.b32 %r8, %r8, 511; st.shared"
                )
        ),
        None
    );
}

const LOAD: &str = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r7}, [%r8];";

#[test]
fn reductions_of_a_barrier_keep_warps_together() {
    let two = "setp.lt.u32 %p0, %r2, 16; @%p0 bra LOW; barrier.red.popcALIGNED.u32 %r7, 0, %p0; bra END;\n\
               LOW: barrier.red.popcALIGNED.u32 %r7, 0, %p0;\nEND:";
    assert_eq!(finding(32, &two.replace("ALIGNED", "")), None);
    assert_eq!(
        finding(32, &two.replace("ALIGNED", ".aligned")),
        Some(Finding::Divergence)
    );
}

#[test]
fn waits_for_nothing() {
    for wait in [
        "cp.async.wait_all;",
        "cp.async.wait_group 0;",
        "cp.async.bulk.wait_group 0;",
        "wgmma.wait_group.sync.aligned 0;",
    ] {
        assert_eq!(finding(32, wait), None, "{wait}");
    }
    let arrive = "cp.async.mbarrier.arrive.noinc.shared.b64 [%r4];\n\
                  AGAIN: mbarrier.try_wait.parity.shared.b64 %p2, [%r4], 0; @!%p2 bra AGAIN;";
    assert_eq!(with_mbarrier(32, arrive), None);
}

#[test]
fn masks_of_two_halves() {
    // The lanes arrive together, each half with its own mask.
    let masks = "setp.lt.u32 %p0, %r2, 16; selp.b32 %r7, 0xffff, 0xffff0000, %p0; ";
    assert_eq!(
        finding(
            32,
            &format!("{masks} shfl.sync.bfly.b32 %r8, %r1, 1, 31, %r7;")
        ),
        None
    );
    assert_eq!(
        finding(
            32,
            &format!("{masks} shfl.sync.bfly.b32 %r8, %r1, 16, 31, %r7;")
        ),
        Some(Finding::Divergence)
    );
    assert_eq!(finding(32, &format!("{masks} bar.warp.sync %r7;")), None);
}

#[test]
fn barriers() {
    let second = "setp.ge.u32 %p0, %r1, 32; ";
    assert_eq!(
        finding(64, &format!("{second} @%p0 exit; bar.sync 0;")),
        Some(Finding::Barrier)
    );
    assert_eq!(
        finding(64, &format!("{second} @%p0 bra SKIP; bar.sync 0;\nSKIP:")),
        Some(Finding::Barrier)
    );
    assert_eq!(
        finding(
            64,
            &format!("{second} @%p0 bra SKIP; bar.sync 1, 32;\nSKIP:")
        ),
        None
    );
    assert_eq!(
        finding(
            64,
            &format!(
                "{second} @%p0 bra SKIP; bar.sync 1, 32;\nSKIP: @!%p0 bra END; bar.sync 1, 64;\nEND:"
            )
        ),
        Some(Finding::Barrier)
    );
    assert_eq!(finding(64, "bar.sync 1, 48;"), Some(Finding::Barrier));
    assert_eq!(finding(64, "bar.sync 16;"), Some(Finding::Barrier));
    assert_eq!(
        finding(
            64,
            &format!("{second} @%p0 bra B; bar.sync 1, 64; bra END;\nB: bar.sync 2, 64;\nEND:")
        ),
        Some(Finding::Barrier)
    );
}

#[test]
fn ends() {
    assert_eq!(finding(32, "FOREVER: bra FOREVER;"), Some(Finding::Budget));
    assert_eq!(finding(32, "trap;"), Some(Finding::Trap));
    assert_eq!(finding(32, "setp.ne.u32 %p0, %r1, %r1; @%p0 trap;"), None);
}

/// One thread initialises an mbarrier at `tile`, then all do `body`.
fn with_mbarrier(count: u32, body: &str) -> Option<Finding> {
    let init = format!(
        "setp.ne.u32 %p1, %r1, 0; @%p1 bra READY; mbarrier.init.shared.b64 [%r4], {count};\nREADY: bar.sync 0;"
    );
    finding(32, &format!("{init} {body}"))
}

#[test]
fn mbarriers() {
    let wait = "AGAIN: mbarrier.try_wait.parity.shared.b64 %p2, [%r4], 0; @!%p2 bra AGAIN;";
    assert_eq!(
        with_mbarrier(32, &format!("mbarrier.arrive.shared.b64 _, [%r4]; {wait}")),
        None
    );
    assert_eq!(
        with_mbarrier(33, &format!("mbarrier.arrive.shared.b64 _, [%r4]; {wait}")),
        Some(Finding::Deadlock)
    );
    assert_eq!(
        with_mbarrier(8, "mbarrier.arrive.shared.b64 _, [%r4], 3;"),
        Some(Finding::Mbarrier)
    );
    assert_eq!(
        with_mbarrier(32, "@!%p1 mbarrier.init.shared.b64 [%r4], 1;"),
        Some(Finding::Mbarrier)
    );
    assert_eq!(
        with_mbarrier(32, "@!%p1 st.shared.u32 [%r4], 1;"),
        Some(Finding::Mbarrier)
    );
    assert_eq!(
        with_mbarrier(
            32,
            "@!%p1 mbarrier.inval.shared.b64 [%r4]; @!%p1 st.shared.u32 [%r4], 1;"
        ),
        None
    );
    assert_eq!(
        with_mbarrier(32, "mbarrier.arrive.shared.b64 _, [%r4+8];"),
        Some(Finding::Mbarrier)
    );
    assert_eq!(
        with_mbarrier(
            32,
            "@!%p1 mbarrier.arrive.expect_tx.shared.b64 _, [%r4], 64;"
        ),
        Some(Finding::Mbarrier)
    );
    let state = "mbarrier.arrive.shared.b64 %rd5, [%r4];\nLOOK: mbarrier.test_wait.shared.b64 %p2, [%r4], %rd5; @!%p2 bra LOOK;";
    assert_eq!(with_mbarrier(32, state), None);
}

#[test]
fn copies_pass_an_mbarrier() {
    // Every thread copies four bytes; all wait for all copies.
    let copy = "add.u32 %r7, %r6, 128; cp.async.ca.shared.global [%r7], [%rd3], 4;";
    let wait = "AGAIN: mbarrier.try_wait.parity.shared.b64 %p2, [%r4], 0; @!%p2 bra AGAIN; ld.shared.u32 %r8, [%r4+128];";
    let good = format!("{copy} cp.async.mbarrier.arrive.noinc.shared.b64 [%r4]; {wait}");
    assert_eq!(with_mbarrier(32, &good), None);
    let early = format!("{copy} mbarrier.arrive.shared.b64 _, [%r4]; {wait}");
    for completion in [Completion::Early, Completion::Late] {
        let options = Options::default().with_completion(completion);
        let init = "setp.ne.u32 %p1, %r1, 0; @%p1 bra READY; mbarrier.init.shared.b64 [%r4], 32;\nREADY: bar.sync 0;";
        assert!(run_on(32, 1, &format!("{init} {early}"), &options).is_err());
    }
    // Contiguous bytes by the copy unit.
    let bulk = "@%p1 bra WAIT; mbarrier.arrive.expect_tx.shared.b64 _, [%r4], 256; \
                cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r4+128], [%rd1], 256, [%r4];\n\
                WAIT: AGAIN: mbarrier.try_wait.parity.shared.b64 %p2, [%r4], 0; @!%p2 bra AGAIN; ld.shared.u32 %r8, [%r6+128];";
    assert_eq!(with_mbarrier(1, bulk), None);
    assert_eq!(
        with_mbarrier(1, &bulk.replace("256, [%r4]", "250, [%r4]")),
        Some(Finding::Operand)
    );
    assert_eq!(
        with_mbarrier(1, &bulk.replace("[%r4+128], [%rd1]", "[%r4+120], [%rd1]")),
        Some(Finding::Misaligned)
    );
    let stored = "st.shared.u32 [%r6], %r1; fence.proxy.async; bar.sync 0; setp.ne.u32 %p1, %r1, 0; @%p1 bra END; \
                  cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r4], 128; cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;\nEND:";
    assert_eq!(finding(32, stored), None);
    assert_eq!(
        finding(32, &stored.replace("fence.proxy.async;", "")),
        Some(Finding::Race)
    );
    assert_eq!(
        finding(32, &stored.replace("cp.async.bulk.wait_group 0;", "")),
        Some(Finding::Race)
    );
}

#[test]
fn a_lane_waits_while_others_compute() {
    // Lane 0 looks at the mbarrier until lane 1 arrives, which it does after a long loop. The loop of lane 0 is long too.
    let wait = "AGAIN: mbarrier.test_wait.parity.shared.b64 %p2, [%r4], 0; PADDING @!%p2 bra AGAIN; bra END;";
    let body = format!(
        "setp.ne.u32 %p1, %r1, 0; @!%p1 mbarrier.init.shared.b64 [%r4], 1; bar.sync 0; @%p1 bra WORK; {wait}\n\
         WORK: mov.u32 %r7, 3000;\nMORE: sub.u32 %r7, %r7, 1; setp.ne.u32 %p3, %r7, 0; @%p3 bra MORE;\n\
         setp.eq.u32 %p3, %r1, 1; @%p3 mbarrier.arrive.shared.b64 _, [%r4];\nEND:"
    );
    assert_eq!(finding(32, &body.replace("PADDING", "")), None);
    assert_eq!(
        finding(
            32,
            &body.replace("PADDING", &"add.u32 %r8, %r7, 1; ".repeat(100))
        ),
        None
    );
    let never = body.replace("@%p3 mbarrier.arrive.shared.b64 _, [%r4];", "");
    assert_eq!(
        finding(32, &never.replace("PADDING", "")),
        Some(Finding::Deadlock)
    );
}
