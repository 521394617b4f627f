//! Small kernels that access memory wrongly, beside the same ones that do it right.

use ptx_interp::{Finding, Options};

use crate::support::{finding, run_on};

#[test]
fn bounds_and_alignment() {
    assert_eq!(finding(32, "st.shared.u32 [%r6], 0;"), None);
    assert_eq!(
        finding(32, "st.shared.u32 [%r6+900], 0;"),
        Some(Finding::OutOfBounds)
    );
    assert_eq!(
        finding(32, "st.shared.u32 [%r6+2], 0;"),
        Some(Finding::Misaligned)
    );
    assert_eq!(
        finding(32, "st.shared.v4.u32 [%r6], {%r1, %r1, %r1, %r1};"),
        Some(Finding::Misaligned)
    );
    assert_eq!(
        finding(32, "st.global.u32 [%rd3+4000], 0;"),
        Some(Finding::OutOfBounds)
    );
    assert_eq!(
        finding(32, "ld.global.u64 %rd4, [%rd3];"),
        Some(Finding::Misaligned)
    );
    assert_eq!(
        finding(
            32,
            "st.local.u32 [depot+12], 0; ld.local.u32 %r7, [depot+12];"
        ),
        None
    );
    assert_eq!(
        finding(32, "st.local.u32 [depot+16], 0;"),
        Some(Finding::OutOfBounds)
    );
    assert_eq!(
        finding(32, "ld.param.u32 %r7, [p+8];"),
        Some(Finding::OutOfBounds)
    );
    let generic = "cvta.shared.u64 %rd4, 16; st.u32 [%rd4+1020], 0;";
    assert_eq!(finding(1, generic), Some(Finding::OutOfBounds));
    assert_eq!(finding(1, &generic.replace("+1020", "+4")), None);
}

#[test]
fn bytes_that_nobody_wrote() {
    assert_eq!(
        finding(32, "ld.shared.u32 %r7, [%r6];"),
        Some(Finding::NeverWritten)
    );
    assert_eq!(
        finding(32, "ld.local.u32 %r7, [depot];"),
        Some(Finding::NeverWritten)
    );
    assert_eq!(
        finding(32, "st.shared.u16 [%r6], 0; ld.shared.u32 %r7, [%r6];"),
        Some(Finding::NeverWritten)
    );
    assert_eq!(
        finding(32, "st.shared.u32 [%r6], 0; ld.shared.u16 %r7, [%r6+2];"),
        None
    );
}

#[test]
fn races_within_a_warp() {
    // A lane reads what its neighbour wrote.
    let body = "xor.b32 %r7, %r6, 4; st.shared.u32 [%r6], 1; SYNC ld.shared.u32 %r8, [%r7];";
    assert_eq!(finding(32, &body.replace("SYNC", "")), Some(Finding::Race));
    assert_eq!(
        finding(32, &body.replace("SYNC", "bar.warp.sync -1;")),
        None
    );
    assert_eq!(finding(32, &body.replace("SYNC", "bar.sync 0;")), None);
    assert_eq!(finding(32, "st.shared.u32 [%r4], 1;"), Some(Finding::Race));
    assert_eq!(finding(32, "st.shared.u8 [%r4], 1; "), Some(Finding::Race));
    assert_eq!(
        finding(32, "add.u32 %r7, %r4, %r1; st.shared.u8 [%r7], 1;"),
        None
    );
    assert_eq!(
        finding(
            32,
            "xor.b64 %rd4, %rd3, 4; st.global.u32 [%rd3], 1; ld.global.u32 %r8, [%rd4];"
        ),
        Some(Finding::Race)
    );
}

#[test]
fn races_between_warps() {
    let body = "st.shared.u32 [%r6], 0; bar.sync 0; xor.b32 %r7, %r6, 128; st.shared.u32 [%r6], 1; SYNC ld.shared.u32 %r8, [%r7];";
    assert_eq!(
        finding(64, &body.replace("SYNC", "bar.warp.sync -1;")),
        Some(Finding::Race)
    );
    assert_eq!(finding(64, &body.replace("SYNC", "bar.sync 0;")), None);
    assert_eq!(
        finding(64, &body.replace("SYNC", "barrier.sync 3, 64;")),
        None
    );
    // A read before a write needs a barrier too.
    let again = format!(
        "{} AGAIN st.shared.u32 [%r6], 2;",
        body.replace("SYNC", "bar.sync 0;")
    );
    assert_eq!(
        finding(64, &again.replace("AGAIN", "")),
        Some(Finding::Race)
    );
    assert_eq!(finding(64, &again.replace("AGAIN", "bar.sync 0;")), None);
    // The first warp arrives, the second one waits.
    let handed = "st.shared.u32 [%r6], 0; bar.sync 0; setp.ge.u32 %p0, %r1, 32; @%p0 bra READ; st.shared.u32 [%r6], 1; bar.arrive 1, 64; bra END;\n\
                  READ: bar.sync 1, 64; ld.shared.u32 %r8, [%r6+-128];\nEND:";
    assert_eq!(finding(64, handed), None);
    let swapped = handed.replace(
        "st.shared.u32 [%r6], 1; bar.arrive 1, 64;",
        "bar.arrive 1, 64; st.shared.u32 [%r6], 1;",
    );
    let found = run_on(64, 1, &swapped, &Options::default()).map_err(|report| report.finding);
    assert_eq!(found, Err(Finding::Race));
}

#[test]
fn races_between_blocks() {
    let run = |body: &str| {
        run_on(32, 2, body, &Options::default())
            .err()
            .map(|report| report.finding)
    };
    assert_eq!(run("st.global.u32 [%rd3], %r1;"), Some(Finding::Race));
    assert_eq!(run("ld.global.u32 %r7, [%rd3];"), None);
    assert_eq!(run("red.global.add.u32 [%rd1], 1;"), None);
    assert_eq!(
        run("red.global.add.u32 [%rd1], 1; ld.global.u32 %r7, [%rd1];"),
        Some(Finding::Race)
    );
    assert_eq!(
        run("mul.wide.u32 %rd4, %r3, 128; add.s64 %rd3, %rd3, %rd4; st.global.u32 [%rd3], %r1;"),
        None
    );
    assert_eq!(
        run(
            "setp.eq.u32 %p0, %r3, 1; @%p0 st.global.u32 [%rd3], 1; @!%p0 ld.global.u32 %r7, [%rd3];"
        ),
        Some(Finding::Race)
    );
}
