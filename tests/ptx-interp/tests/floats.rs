//! Floating point, comparisons and conversions against exact results.

use crate::support::value_of;

fn bits(x: f32) -> u32 {
    x.to_bits()
}

#[test]
fn roundings_of_sums_and_products() {
    let one = bits(1.0);
    let tiny = bits(1e-20);
    let next = one + 1;
    for (mode, sum, difference) in [
        ("rn", one, one),
        ("rz", one, one - 1),
        ("rm", one, one - 1),
        ("rp", next, one),
    ] {
        assert_eq!(
            value_of(&format!("add.{mode}.f32 %r0, %r1, %r2;"), one, tiny, 0),
            sum,
            "{mode}"
        );
        assert_eq!(
            value_of(&format!("sub.{mode}.f32 %r0, %r1, %r2;"), one, tiny, 0),
            difference,
            "{mode}"
        );
        // 1 * 1 + 1e-20, not rounded in between.
        assert_eq!(
            value_of(&format!("fma.{mode}.f32 %r0, %r1, %r1, %r2;"), one, tiny, 0),
            sum,
            "{mode}"
        );
    }
    let third = |mode: &str| value_of(&format!("div.{mode}.f32 %r0, %r1, %r2;"), one, bits(3.0), 0);
    assert_eq!(third("rp"), third("rm") + 1);
    assert_eq!(third("rz"), third("rm"));
    assert_eq!(third("rn"), bits(1.0 / 3.0));
    let root = |mode: &str| value_of(&format!("sqrt.{mode}.f32 %r0, %r1;"), bits(2.0), 0, 0);
    assert_eq!(root("rp"), root("rz") + 1);
    let square = |mode: &str| value_of(&format!("mul.{mode}.f32 %r0, %r1, %r1;"), next, 0, 0);
    assert_eq!((square("rm"), square("rp")), (one + 2, one + 3));
    // A sum that cancels is -0 only when it rounds down.
    assert_eq!(
        value_of("add.rm.f32 %r0, %r1, %r2;", one, bits(-1.0), 0),
        bits(-0.0)
    );
    assert_eq!(value_of("add.rp.f32 %r0, %r1, %r2;", one, bits(-1.0), 0), 0);
    assert_eq!(
        value_of(
            "add.rz.f32 %r0, %r1, %r2;",
            bits(f32::MAX),
            bits(f32::MAX),
            0
        ),
        bits(f32::MAX)
    );
    assert_eq!(
        value_of("rcp.rp.f32 %r0, %r1;", 0, 0, 0),
        bits(f32::INFINITY)
    );
}

#[test]
fn flushing_and_saturating() {
    let small = 0x0000_0007;
    assert_eq!(value_of("add.ftz.f32 %r0, %r1, %r1;", small, 0, 0), 0);
    assert_eq!(value_of("add.f32 %r0, %r1, %r1;", small, 0, 0), 14);
    assert_eq!(
        value_of("mul.ftz.f32 %r0, %r1, %r2;", bits(-1e-30), bits(1e-10), 0),
        bits(-0.0)
    );
    assert_eq!(
        value_of("add.sat.f32 %r0, %r1, %r2;", bits(0.75), bits(0.5), 0),
        bits(1.0)
    );
    assert_eq!(
        value_of("mul.sat.f32 %r0, %r1, %r2;", bits(0.75), bits(-0.5), 0),
        0
    );
    assert_eq!(
        value_of(
            "fma.rn.sat.f32 %r0, %r1, %r2, %r3;",
            f32::NAN.to_bits(),
            0,
            0
        ),
        0
    );
    assert_eq!(value_of("abs.ftz.f32 %r0, %r1;", 0x8000_0001, 0, 0), 0);
}

#[test]
fn nan_and_zeros() {
    let nan = 0xffc0_1234;
    assert_eq!(
        value_of("add.f32 %r0, %r1, %r2;", nan, bits(1.0), 0),
        0x7fff_ffff
    );
    assert_eq!(
        value_of("max.f32 %r0, %r1, %r2;", nan, bits(1.0), 0),
        bits(1.0)
    );
    assert_eq!(value_of("min.f32 %r0, %r1, %r2;", nan, nan, 0), 0x7fff_ffff);
    assert_eq!(
        value_of("max.NaN.f32 %r0, %r1, %r2;", nan, bits(1.0), 0),
        0x7fff_ffff
    );
    assert_eq!(
        value_of("max.f32 %r0, %r1, %r2;", bits(-0.0), bits(0.0), 0),
        bits(0.0)
    );
    assert_eq!(
        value_of("min.f32 %r0, %r1, %r2;", bits(0.0), bits(-0.0), 0),
        bits(-0.0)
    );
    assert_eq!(
        value_of(
            "ex2.approx.ftz.f32 %r0, %r1;",
            bits(f32::NEG_INFINITY),
            0,
            0
        ),
        0
    );
    assert_eq!(
        value_of("lg2.approx.f32 %r0, %r1;", bits(0.0), 0, 0),
        bits(f32::NEG_INFINITY)
    );
    assert_eq!(
        value_of("rsqrt.approx.f32 %r0, %r1;", bits(4.0), 0, 0),
        bits(0.5)
    );
    assert_eq!(
        value_of("ex2.approx.f32 %r0, %r1;", bits(-3.0), 0, 0),
        bits(0.125)
    );
    assert_eq!(
        value_of("copysign.f32 %r0, %r1, %r2;", bits(-1.0), bits(3.0), 0),
        bits(-3.0)
    );
}

#[test]
fn comparisons_with_nan() {
    let nan = f32::NAN.to_bits();
    for (test, expected) in [
        ("eq", 0),
        ("ne", 0),
        ("lt", 0),
        ("le", 0),
        ("gt", 0),
        ("ge", 0),
        ("num", 0),
        ("equ", 1),
        ("neu", 1),
        ("ltu", 1),
        ("leu", 1),
        ("gtu", 1),
        ("geu", 1),
        ("nan", 1),
    ] {
        let body = format!("setp.{test}.f32 %p0, %r1, %r2; selp.u32 %r0, 1, 0, %p0;");
        assert_eq!(value_of(&body, nan, bits(1.0), 0), expected, "{test}");
    }
    let signed = "setp.lt.s32 %p0, %r1, %r2; selp.u32 %r0, 1, 0, %p0;";
    assert_eq!(value_of(signed, u32::MAX, 0, 0), 1);
    assert_eq!(
        value_of(&signed.replace("s32 %p0", "u32 %p0"), u32::MAX, 0, 0),
        0
    );
    let pair = "setp.eq.u32 %p2, 1, 1; setp.lt.and.s32 %p0|%p1, %r1, %r2, %p2; selp.u32 %r0, 2, 0, %p1; @%p0 add.u32 %r0, %r0, 1;";
    assert_eq!(value_of(pair, 1, 2, 0), 1);
    assert_eq!(value_of(pair, 2, 1, 0), 2);
    assert_eq!(
        value_of(
            "setp.ge.or.s32 %p0, %r1, %r2, !%p0; selp.u32 %r0, 1, 0, %p0;",
            5,
            5,
            0
        ),
        1
    );
    let packed = "set.ge.f16x2.f16x2 %r0, %r1, %r2;";
    assert_eq!(value_of(packed, 0x3c00_4000, 0x4000_4000, 0), 0x0000_3c00);
    assert_eq!(
        value_of(
            "set.gt.bf16x2.bf16x2 %r0, %r1, %r2;",
            0x4000_3f80,
            0x3f80_3f80,
            0
        ),
        0x3f80_0000
    );
    assert_eq!(value_of("set.eq.u32.u32 %r0, %r1, %r2;", 3, 3, 0), u32::MAX);
    assert_eq!(
        value_of("set.eq.f32.u32 %r0, %r1, %r2;", 3, 3, 0),
        bits(1.0)
    );
}

#[test]
fn conversions_to_integers() {
    let to = |mode: &str, x: f32| value_of(&format!("cvt.{mode} %r0, %r1;"), bits(x), 0, 0) as i32;
    assert_eq!(
        [
            to("rni.s32.f32", 2.5),
            to("rni.s32.f32", 3.5),
            to("rni.s32.f32", -2.5)
        ],
        [2, 4, -2]
    );
    assert_eq!(
        [
            to("rzi.s32.f32", -2.9),
            to("rmi.s32.f32", -2.1),
            to("rpi.s32.f32", 2.1)
        ],
        [-2, -3, 3]
    );
    assert_eq!(
        [
            to("rzi.s32.f32", 1e20),
            to("rzi.s32.f32", -1e20),
            to("rzi.s32.f32", f32::NAN)
        ],
        [i32::MAX, i32::MIN, 0]
    );
    assert_eq!([to("rzi.u32.f32", -5.0), to("rzi.u32.f32", 1e20)], [0, -1]);
    assert_eq!(
        value_of("cvt.rni.f32.f32 %r0, %r1;", bits(2.5), 0, 0),
        bits(2.0)
    );
    assert_eq!(
        value_of("cvt.sat.f32.f32 %r0, %r1;", bits(2.5), 0, 0),
        bits(1.0)
    );
    assert_eq!(
        value_of("cvt.rn.f32.s32 %r0, %r1;", 0x0100_0001, 0, 0),
        bits(16_777_216.0)
    );
    assert_eq!(
        value_of("cvt.rp.f32.s32 %r0, %r1;", 0x0100_0001, 0, 0),
        bits(16_777_218.0)
    );
    assert_eq!(value_of("cvt.s32.s8 %r0, %r1;", 0x180, 0, 0), 0xffff_ff80);
    assert_eq!(value_of("cvt.u32.u8 %r0, %r1;", 0x180, 0, 0), 0x80);
    assert_eq!(value_of("cvt.sat.u8.s32 %r0, %r1;", 300, 0, 0), 255);
    assert_eq!(
        value_of("cvt.sat.s8.s32 %r0, %r1;", -300i32 as u32, 0, 0),
        0xffff_ff80
    );
    // A register that is wider than the type holds the sign too.
    assert_eq!(
        value_of("cvt.s16.u32 %r0, %r1;", 0x1_8000, 0, 0),
        0xffff_8000
    );
    assert_eq!(value_of("cvt.u16.s32 %r0, %r1;", 0x1_8000, 0, 0), 0x8000);
    // NaN is 0 only where neither type has 64 bits.
    let nan = f32::NAN.to_bits();
    let from_f64 = "mov.b32 %f1, %r1; cvt.f64.f32 %rd0, %f1; cvt.rzi.s32.f64 %r0, %rd0;";
    assert_eq!(value_of(from_f64, nan, 0, 0), 1 << 31);
    let to_s64 = "cvt.rzi.s64.f32 %rd0, %r1; shr.u64 %rd0, %rd0, 32; cvt.u32.u64 %r0, %rd0;";
    assert_eq!(value_of(to_s64, nan, 0, 0), 1 << 31);
}

#[test]
fn conversions_to_halves() {
    let half = |mode: &str, x: f32| {
        value_of(
            &format!("mov.b32 %f1, %r1; cvt.{mode}.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;"),
            bits(x),
            0,
            0,
        )
    };
    // Halfway between two bf16: to the even one, or towards zero.
    assert_eq!(
        [
            half("rn.bf16", 1.0 + 1.0 / 256.0),
            half("rn.bf16", 1.0 + 3.0 / 256.0)
        ],
        [0x3f80, 0x3f82]
    );
    assert_eq!(half("rz.bf16", 1.0 + 3.0 / 256.0), 0x3f81);
    assert_eq!(
        [
            half("rn.bf16", f32::MAX),
            half("rz.bf16", f32::MAX),
            half("rn.bf16", f32::NAN)
        ],
        [0x7f80, 0x7f7f, 0x7fff]
    );
    assert_eq!(half("rn.relu.bf16", -1.0), 0);
    assert_eq!(
        [
            half("rn.f16", 65519.0),
            half("rn.f16", 65520.0),
            half("rz.f16", 1e30)
        ],
        [0x7bff, 0x7c00, 0x7bff]
    );
    // The least subnormal number, half of it, and slightly more.
    assert_eq!(
        [
            half("rn.f16", 5.960_464_5e-8),
            half("rn.f16", 2.980_232_2e-8),
            half("rn.f16", 2.980_233e-8)
        ],
        [1, 0, 1]
    );
    assert_eq!(half("rn.f16", -0.0), 0x8000);
    let packed = "mov.b32 %f1, %r1; mov.b32 %f2, %r2; cvt.rn.bf16x2.f32 %r0, %f1, %f2;";
    assert_eq!(value_of(packed, bits(1.0), bits(2.0), 0), 0x3f80_4000);
    assert_eq!(
        value_of("cvt.rna.tf32.f32 %r0, %r1;", 0x3f80_1000, 0, 0),
        0x3f80_2000
    );
    assert_eq!(
        value_of(
            "cvt.u16.u32 %h0, %r1; cvt.f32.f16 %f0, %h0; mov.b32 %r0, %f0;",
            0x0001,
            0,
            0
        ),
        bits(5.960_464_5e-8)
    );
    assert_eq!(
        value_of(
            "fma.rn.bf16x2 %r0, %r1, %r2, %r3;",
            0x3f80_4000,
            0x4000_4000,
            0x3f80_3f80
        ),
        0x4040_40a0
    );
    assert_eq!(
        value_of("max.f16x2 %r0, %r1, %r2;", 0x3c00_7e00, 0x4000_3c00, 0),
        0x4000_3c00
    );
}
