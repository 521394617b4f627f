//! Instructions on drawn numbers against Rust.

use proptest::prelude::*;

use crate::support::lanes_of;

/// Numbers that are often near the ends of their range.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0u32..40,
        (0u32..40).prop_map(|x| u32::MAX - x),
        (0u32..40).prop_map(|x| x.wrapping_add(1 << 31))
    ]
}

fn inputs() -> impl Strategy<Value = [[u32; 3]; 32]> {
    proptest::collection::vec([word(), word(), word()], 32)
        .prop_map(|all| std::array::from_fn(|lane| all[lane]))
}

fn check(inputs: &[[u32; 3]; 32], body: &str, expected: impl Fn([u32; 3]) -> u32) {
    let found = lanes_of(body, inputs).unwrap_or_else(|e| panic!("{e}"));
    for (lane, found) in found.into_iter().enumerate() {
        let [a, b, c] = inputs[lane];
        assert_eq!(
            found,
            expected(inputs[lane]),
            "{body} of {a:#x}, {b:#x}, {c:#x}"
        );
    }
}

/// The NaN of GPUs in place of any other.
fn canonical(x: f32) -> u32 {
    if x.is_nan() { 0x7fff_ffff } else { x.to_bits() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn integers(inputs in inputs()) {
        let i = |x: u32| x as i32;
        check(&inputs, "add.s32 %r0, %r1, %r2;", |[a, b, _]| a.wrapping_add(b));
        check(&inputs, "sub.s32 %r0, %r1, %r2;", |[a, b, _]| a.wrapping_sub(b));
        check(&inputs, "mul.lo.s32 %r0, %r1, %r2;", |[a, b, _]| a.wrapping_mul(b));
        check(&inputs, "mul.hi.s32 %r0, %r1, %r2;", |[a, b, _]| ((i64::from(i(a)) * i64::from(i(b))) >> 32) as u32);
        check(&inputs, "mul.hi.u32 %r0, %r1, %r2;", |[a, b, _]| ((u64::from(a) * u64::from(b)) >> 32) as u32);
        check(&inputs, "mad.lo.s32 %r0, %r1, %r2, %r3;", |[a, b, c]| a.wrapping_mul(b).wrapping_add(c));
        check(&inputs, "div.s32 %r0, %r1, %r2;", |[a, b, _]| if b == 0 { u32::MAX } else { i(a).wrapping_div(i(b)) as u32 });
        check(&inputs, "rem.u32 %r0, %r1, %r2;", |[a, b, _]| a.checked_rem(b).unwrap_or(a));
        check(&inputs, "min.s32 %r0, %r1, %r2;", |[a, b, _]| i(a).min(i(b)) as u32);
        check(&inputs, "max.u32 %r0, %r1, %r2;", |[a, b, _]| a.max(b));
        check(&inputs, "shl.b32 %r0, %r1, %r2;", |[a, b, _]| a.checked_shl(b).unwrap_or(0));
        check(&inputs, "shr.s32 %r0, %r1, %r2;", |[a, b, _]| (i(a) >> b.min(31)) as u32);
        check(&inputs, "add.sat.s32 %r0, %r1, %r2;", |[a, b, _]| i(a).saturating_add(i(b)) as u32);
        check(&inputs, "sad.u32 %r0, %r1, %r2, %r3;", |[a, b, c]| a.abs_diff(b).wrapping_add(c));
        check(&inputs, "popc.b32 %r0, %r1;", |[a, ..]| a.count_ones());
        check(&inputs, "setp.lt.s32 %p0, %r1, %r2; selp.b32 %r0, %r3, %r1, %p0;", |[a, b, c]| if i(a) < i(b) { c } else { a });
        check(&inputs, "lop3.b32 %r0, %r1, %r2, %r3, 0xe8;", |[a, b, c]| (a & b) | (b & c) | (a & c));
    }

    #[test]
    fn wide_integers(inputs in inputs()) {
        let pair = |[a, b, _]: [u32; 3]| u64::from(a) | u64::from(b) << 32;
        let run = |op: &str, f: &dyn Fn(u64, u32) -> u64| {
            for (half, shift) in [("{%r0, _}", 0), ("{_, %r0}", 32)] {
                let body = format!("mov.b64 %rd0, {{%r1, %r2}}; cvt.u64.u32 %rd1, %r3; {op} mov.b64 {half}, %rd2;");
                check(&inputs, &body, |all| (f(pair(all), all[2]) >> shift) as u32);
            }
        };
        run("add.s64 %rd2, %rd0, %rd1;", &|x, c| x.wrapping_add(c.into()));
        run("mul.lo.s64 %rd2, %rd0, %rd1;", &|x, c| x.wrapping_mul(c.into()));
        run("mul.hi.u64 %rd2, %rd0, %rd1;", &|x, c| ((u128::from(x) * u128::from(c)) >> 64) as u64);
        run("div.u64 %rd2, %rd0, %rd1;", &|x, c| x.checked_div(c.into()).unwrap_or(u64::MAX));
        run("rem.s64 %rd2, %rd0, %rd1;", &|x, c| (x as i64).checked_rem(i64::from(c)).unwrap_or(x as i64) as u64);
        run("shr.s64 %rd2, %rd0, %r3;", &|x, c| ((x as i64) >> c.min(63)) as u64);
        run("mad.wide.s32 %rd2, %r3, -5, %rd0;", &|x, c| (i64::from(c as i32) * -5).wrapping_add(x as i64) as u64);
        run("min.s64 %rd2, %rd0, %rd1;", &|x, c| (x as i64).min(c.into()) as u64);
    }

    #[test]
    fn floats(inputs in inputs()) {
        let f = f32::from_bits;
        check(&inputs, "add.rn.f32 %r0, %r1, %r2;", |[a, b, _]| canonical(f(a) + f(b)));
        check(&inputs, "mul.f32 %r0, %r1, %r2;", |[a, b, _]| canonical(f(a) * f(b)));
        check(&inputs, "div.rn.f32 %r0, %r1, %r2;", |[a, b, _]| canonical(f(a) / f(b)));
        check(&inputs, "fma.rn.f32 %r0, %r1, %r2, %r3;", |[a, b, c]| canonical(f(a).mul_add(f(b), f(c))));
        check(&inputs, "sqrt.rn.f32 %r0, %r1;", |[a, ..]| canonical(f(a).sqrt()));
        check(&inputs, "cvt.rn.f32.s32 %r0, %r1;", |[a, ..]| (a as i32 as f32).to_bits());
        check(&inputs, "cvt.rzi.s32.f32 %r0, %r1;", |[a, ..]| f(a) as i32 as u32);
        check(&inputs, "setp.ltu.f32 %p0, %r1, %r2; selp.u32 %r0, 1, 0, %p0;", |[a, b, _]| u32::from(f(a) < f(b) || f(a).is_nan() || f(b).is_nan()));
        check(&inputs, "neg.f32 %r0, %r1;", |[a, ..]| a ^ 0x8000_0000);
    }

    /// A directed result and the nearest one are neighbours or equal, and enclose the exact value.
    #[test]
    fn directions(inputs in inputs()) {
        for op in ["add.MODE.f32 %r0, %r1, %r2;", "mul.MODE.f32 %r0, %r1, %r2;", "fma.MODE.f32 %r0, %r1, %r2, %r3;", "div.MODE.f32 %r0, %r1, %r2;"] {
            let run = |mode: &str| lanes_of(&op.replace("MODE", mode), &inputs).unwrap_or_else(|e| panic!("{e}"));
            let [down, near, up, zero] = ["rm", "rn", "rp", "rz"].map(run);
            for lane in 0..32 {
                let [d, n, u, z] = [down, near, up, zero].map(|all| f32::from_bits(all[lane]));
                if n.is_nan() {
                    assert!(d.is_nan() && u.is_nan() && z.is_nan());
                    continue;
                }
                assert!(d <= n && n <= u, "{op} {:x?}: {d} {n} {u}", inputs[lane]);
                assert!(d == u || d.next_up() == u, "{op} {:x?}: {d} {u}", inputs[lane]);
                assert_eq!(z, if u <= 0.0 { u } else { d }, "{op} {:x?}", inputs[lane]);
            }
        }
    }

    #[test]
    fn halves(inputs in inputs()) {
        use half::{bf16, f16};
        let b = |x: u32| bf16::from_bits(x as u16);
        let h = |x: u32| f16::from_bits(x as u16);
        let low = |op: &str| format!("mov.b32 {{%h1, _}}, %r1; mov.b32 {{%h2, _}}, %r2; {op} cvt.u32.u16 %r0, %h0;");
        let of = |nan: bool, bits: u16| u32::from(if nan { 0x7fff } else { bits });
        let sum = |a: f32, b: f32| f64::from(a) + f64::from(b);
        check(&inputs, &low("add.bf16 %h0, %h1, %h2;"), |[x, y, _]| {
            let exact = sum(b(x).to_f32(), b(y).to_f32());
            of(exact.is_nan(), bf16::from_f64(exact).to_bits())
        });
        check(&inputs, &low("mul.f16 %h0, %h1, %h2;"), |[x, y, _]| {
            let exact = h(x).to_f32() * h(y).to_f32();
            of(exact.is_nan(), f16::from_f32(exact).to_bits())
        });
        check(&inputs, "mov.b32 %f1, %r1; cvt.rn.bf16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", |[x, ..]| {
            let x = f32::from_bits(x);
            of(x.is_nan(), bf16::from_f32(x).to_bits())
        });
        check(&inputs, "mov.b32 %f1, %r1; cvt.rn.f16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", |[x, ..]| {
            let x = f32::from_bits(x);
            of(x.is_nan(), f16::from_f32(x).to_bits())
        });
        check(&inputs, &low("cvt.f32.f16 %f0, %h1; mov.b32 %r3, %f0; mov.u16 %h0, 0;").replace("cvt.u32.u16 %r0, %h0", "mov.u32 %r0, %r3"), |[x, ..]| canonical(h(x).to_f32()));
    }
}
