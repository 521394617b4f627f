//! Instructions on integers and bits against exact results.

use crate::support::value_of;

#[test]
fn shifts_by_the_width_or_more() {
    assert_eq!(value_of("shl.b32 %r0, %r1, %r2;", 1, 31, 0), 1 << 31);
    assert_eq!(value_of("shl.b32 %r0, %r1, %r2;", 1, 32, 0), 0);
    assert_eq!(value_of("shr.u32 %r0, %r1, %r2;", u32::MAX, 40, 0), 0);
    assert_eq!(
        value_of("shr.s32 %r0, %r1, %r2;", 0x8000_0000, 40, 0),
        u32::MAX
    );
    assert_eq!(
        value_of("shr.s32 %r0, %r1, %r2;", 0x8000_0000, 31, 0),
        u32::MAX
    );
    assert_eq!(
        value_of(
            "cvt.u64.u32 %rd0, %r1; shl.b64 %rd0, %rd0, 64; cvt.u32.u64 %r0, %rd0;",
            1,
            0,
            0
        ),
        0
    );
    assert_eq!(
        value_of("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", 0x8000_0000, 1, 33),
        3
    );
    assert_eq!(value_of("shf.l.clamp.b32 %r0, %r1, %r2, %r3;", 7, 1, 33), 7);
    assert_eq!(
        value_of("shf.r.wrap.b32 %r0, %r1, %r2, %r3;", 2, 1, 1),
        0x8000_0001
    );
    assert_eq!(value_of("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", 2, 9, 32), 9);
}

#[test]
fn permutations_of_bytes() {
    let prmt = |mode: &str, c| {
        value_of(
            &format!("prmt.b32{mode} %r0, %r1, %r2, %r3;"),
            0x3322_1180,
            0x7766_5544,
            c,
        )
    };
    assert_eq!(prmt("", 0x3210), 0x3322_1180);
    assert_eq!(prmt("", 0x5410), 0x5544_1180);
    // The upper bit of a selector replicates the sign.
    assert_eq!(prmt("", 0x8888), 0xffff_ffff);
    assert_eq!(prmt("", 0x9999), 0);
    assert_eq!(prmt(".f4e", 1), 0x4433_2211);
    assert_eq!(prmt(".b4e", 1), 0x6677_8011);
    assert_eq!(prmt(".rc8", 2), 0x2222_2222);
    assert_eq!(prmt(".ecl", 2), 0x3322_2222);
    assert_eq!(prmt(".ecr", 1), 0x1111_1180);
    assert_eq!(prmt(".rc16", 1), 0x3322_3322);
}

#[test]
fn high_halves_and_wide_products() {
    assert_eq!(
        value_of("mul.hi.s32 %r0, %r1, %r2;", -3i32 as u32, 5, 0),
        u32::MAX
    );
    assert_eq!(
        value_of("mul.hi.u32 %r0, %r1, %r2;", u32::MAX, u32::MAX, 0),
        u32::MAX - 1
    );
    assert_eq!(
        value_of(
            "mul.wide.s32 %rd0, %r1, %r2; shr.u64 %rd0, %rd0, 32; cvt.u32.u64 %r0, %rd0;",
            u32::MAX,
            2,
            0
        ),
        u32::MAX
    );
    assert_eq!(
        value_of(
            "mul.wide.u32 %rd0, %r1, %r2; shr.u64 %rd0, %rd0, 32; cvt.u32.u64 %r0, %rd0;",
            u32::MAX,
            2,
            0
        ),
        1
    );
    assert_eq!(
        value_of(
            "mad.wide.s32 %rd0, %r1, %r2, -1; cvt.u32.u64 %r0, %rd0;",
            3,
            4,
            0
        ),
        11
    );
    assert_eq!(
        value_of("mad.hi.u32 %r0, %r1, %r2, %r3;", 1 << 31, 6, 10),
        13
    );
    let wide = "cvt.u64.u32 %rd0, %r1; neg.s64 %rd0, %rd0; mul.hi.u64 %rd1, %rd0, %rd0; cvt.u32.u64 %r0, %rd1;";
    assert_eq!(value_of(wide, 1, 0, 0), u32::MAX - 1);
}

#[test]
fn division_by_zero_and_overflow() {
    assert_eq!(value_of("div.s32 %r0, %r1, %r2;", 7, 0, 0), u32::MAX);
    assert_eq!(value_of("div.u32 %r0, %r1, %r2;", 7, 0, 0), u32::MAX);
    assert_eq!(value_of("rem.s32 %r0, %r1, %r2;", 7, 0, 0), 7);
    assert_eq!(
        value_of("div.s32 %r0, %r1, %r2;", 0x8000_0000, u32::MAX, 0),
        0x8000_0000
    );
    assert_eq!(
        value_of("div.s32 %r0, %r1, %r2;", -7i32 as u32, 2, 0),
        -3i32 as u32
    );
    assert_eq!(
        value_of("rem.s32 %r0, %r1, %r2;", -7i32 as u32, 2, 0),
        -1i32 as u32
    );
    assert_eq!(
        value_of("add.sat.s32 %r0, %r1, %r2;", 0x7fff_ffff, 1, 0),
        0x7fff_ffff
    );
    assert_eq!(
        value_of("abs.s32 %r0, %r1;", 0x8000_0000, 0, 0),
        0x8000_0000
    );
}

#[test]
fn fields_of_bits() {
    assert_eq!(
        value_of("bfe.u32 %r0, %r1, %r2, %r3;", 0xabcd_1234, 8, 8),
        0x12
    );
    assert_eq!(
        value_of("bfe.s32 %r0, %r1, %r2, %r3;", 0xabcd_8234, 8, 8),
        0xffff_ff82
    );
    assert_eq!(
        value_of("bfe.s32 %r0, %r1, %r2, %r3;", 0x8000_0000, 28, 8),
        0xffff_fff8
    );
    assert_eq!(
        value_of("bfe.u32 %r0, %r1, %r2, %r3;", 0x8000_0000, 28, 8),
        8
    );
    assert_eq!(value_of("bfe.s32 %r0, %r1, %r2, %r3;", u32::MAX, 0, 0), 0);
    assert_eq!(
        value_of("bfe.s32 %r0, %r1, %r2, %r3;", 0x8000_0000, 40, 4),
        u32::MAX
    );
    assert_eq!(
        value_of("bfi.b32 %r0, %r1, %r2, %r3, 8;", 0xab, 0xffff_ffff, 8),
        0xffff_abff
    );
    assert_eq!(value_of("bfi.b32 %r0, %r1, %r2, %r3, 8;", 0xab, 5, 32), 5);
    assert_eq!(value_of("clz.b32 %r0, %r1;", 0, 0, 0), 32);
    assert_eq!(value_of("bfind.u32 %r0, %r1;", 0x10, 0, 0), 4);
    assert_eq!(value_of("bfind.shiftamt.u32 %r0, %r1;", 0x10, 0, 0), 27);
    assert_eq!(value_of("bfind.s32 %r0, %r1;", u32::MAX, 0, 0), u32::MAX);
    assert_eq!(value_of("brev.b32 %r0, %r1;", 1, 0, 0), 1 << 31);
    assert_eq!(
        value_of("lop3.b32 %r0, %r1, %r2, %r3, 0xca;", 0xf0, 0xcc, 0xaa),
        0xca
    );
    assert_eq!(
        value_of("and.b32 %r0, %r1, -16;", 0x1234_5678, 0, 0),
        0x1234_5670
    );
}

#[test]
fn signed_loads_fill_their_registers() {
    let high = "shr.u64 %rd4, %rd4, 32; cvt.u32.u64 %r0, %rd4;";
    let load = |body: &str| value_of(body, 0x8000_0080, 0, 0);
    assert_eq!(
        load(&format!("ld.global.s32 %rd4, [%rd14]; {high}")),
        u32::MAX
    );
    assert_eq!(load(&format!("ld.global.u32 %rd4, [%rd14]; {high}")), 0);
    // Of a vector too: the first parameter is an address from 0x7000_0000_0000 on.
    assert_eq!(
        load(&format!("ld.param.v2.s64 {{%rd4, _}}, [in]; {high}")),
        0x7000
    );
    assert_eq!(load("ld.global.s8 %r0, [%rd14];"), 0xffff_ff80);
    assert_eq!(load("ld.global.u8 %r0, [%rd14];"), 0x80);
    assert_eq!(
        load("ld.global.s8 %h0, [%rd14]; cvt.u32.u16 %r0, %h0;"),
        0xff80
    );
}
