//! Instructions that lanes execute together, and branches.

use crate::support::{lanes_of, value_of};

#[test]
fn vectors_of_registers() {
    assert_eq!(
        value_of(
            "mov.b64 %rd0, {%r1, %r2}; mov.b64 {%r3, %r0}, %rd0;",
            5,
            6,
            0
        ),
        6
    );
    assert_eq!(
        value_of(
            "mov.b32 {%h0, %h1}, %r1; mov.b32 %r0, {%h1, %h0};",
            0x1234_5678,
            0,
            0
        ),
        0x5678_1234
    );
}

#[test]
fn lanes_work_together() {
    let inputs: [[u32; 3]; 32] = std::array::from_fn(|lane| [lane as u32, lane as u32 % 3, 7]);
    let run = |body: &str| lanes_of(body, &inputs).unwrap_or_else(|e| panic!("{e}"));
    let odd = "and.b32 %r4, %r1, 1; setp.eq.u32 %p0, %r4, 1; ";
    assert_eq!(
        run(&format!("{odd} vote.sync.ballot.b32 %r0, %p0, 0xffffffff;")),
        [0xaaaa_aaaa; 32]
    );
    assert_eq!(
        run(&format!("{odd} vote.sync.ballot.b32 %r0, !%p0, -1;")),
        [0x5555_5555; 32]
    );
    let any = run(&format!(
        "{odd} vote.sync.any.pred %p1, %p0, -1; vote.sync.all.pred %p2, %p0, -1; selp.u32 %r0, 1, 0, %p1; @%p2 mov.u32 %r0, 9;"
    ));
    assert_eq!(any, [1; 32]);
    assert_eq!(
        run("match.any.sync.b32 %r0, %r2, -1;")[4],
        0b1001_0010_0100_1001_0010_0100_1001_0010
    );
    assert_eq!(run("match.all.sync.b32 %r0|%p0, %r3, -1;"), [u32::MAX; 32]);
    assert_eq!(run("match.all.sync.b32 %r0|%p0, %r2, -1;"), [0; 32]);
    assert_eq!(run("redux.sync.add.u32 %r0, %r1, -1;"), [31 * 16; 32]);
    assert_eq!(
        run("sub.u32 %r4, %r1, 5; redux.sync.min.s32 %r0, %r4, -1;"),
        [-5i32 as u32; 32]
    );
    assert_eq!(
        run("sub.u32 %r4, %r1, 5; redux.sync.min.u32 %r0, %r4, -1;"),
        [0; 32]
    );
    assert_eq!(
        run("elect.sync %r0|%p0, -1; @%p0 add.u32 %r0, %r0, 50;")[..2],
        [50, 0]
    );
    let divergent = format!(
        "{odd} @%p0 bra ODD; activemask.b32 %r0; bra END;\nODD: redux.sync.max.u32 %r0, %r1, 0xaaaaaaaa;\nEND:"
    );
    assert_eq!(run(&divergent)[..2], [0x5555_5555, 31]);
    let lower = run("mov.u32 %r0, %lanemask_lt;");
    assert_eq!([lower[0], lower[5], lower[31]], [0, 31, 0x7fff_ffff]);
}

#[test]
fn loops_diverge_and_join_again() {
    // Each lane adds 1 as often as its number says; then all of them vote together.
    let body = "setp.eq.u32 %p0, %r1, 0; @%p0 bra DONE;\nMORE: add.u32 %r0, %r0, 1; sub.u32 %r1, %r1, 1; setp.ne.u32 %p0, %r1, 0; @%p0 bra MORE;\n\
                DONE: setp.gt.u32 %p1, %r0, 15; vote.sync.ballot.b32 %r4, %p1, -1; mad.lo.u32 %r0, %r4, 0, %r0; popc.b32 %r4, %r4; mad.lo.u32 %r0, %r4, 100, %r0;";
    let inputs = std::array::from_fn(|lane| [lane as u32, 0, 0]);
    let found = lanes_of(body, &inputs).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found, std::array::from_fn(|lane| 1600 + lane as u32));
}

#[test]
fn tables_of_branches() {
    let body = "brx.idx %r1, TABLE;\nTABLE: .branchtargets A, B;\nA: mov.u32 %r0, 10; bra END;\nB: mov.u32 %r0, 20;\nEND:";
    let inputs = std::array::from_fn(|lane| [lane as u32 % 2, 0, 0]);
    let found = lanes_of(body, &inputs).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found[..3], [10, 20, 10]);
    assert!(lanes_of(body, &[[2, 0, 0]; 32]).is_err());
}
