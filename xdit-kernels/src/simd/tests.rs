//! Every tier's lanes against scalar arithmetic.

use super::*;
use crate::Tier;
use half::{bf16, f16};

/// [x, y, out; op] over two whole vectors and a tail of three.
#[inline(always)]
unsafe fn ops<S: Simd>(x: &[f32], y: &[f32], out: &mut [Vec<f32>]) {
    for o in out.iter_mut() {
        o.resize(x.len(), 0.0);
    }
    let mut i = 0;
    while i < x.len() {
        let n = S::LANES.min(x.len() - i);
        // SAFETY: n lanes from i are inside the slices.
        unsafe {
            let (a, b) = (
                S::load_n(x.as_ptr().add(i), n),
                S::load_n(y.as_ptr().add(i), n),
            );
            let results = [
                S::add(a, b),
                S::fma(a, b, b),
                S::fnma(a, b, b),
                S::max(a, b),
                S::select_gt(a, b, a, S::zero()),
                S::round(a),
                math::exp::<S>(a),
                math::power::<S, 5>(a),
                S::swap_pairs(a),
                S::negate_even(a),
                S::div(a, b),
            ];
            for (o, r) in out.iter_mut().zip(results) {
                S::store_n(o.as_mut_ptr().add(i), n, r);
            }
        }
        i += n;
    }
}
tiered!(fn run_ops(x: &[f32], y: &[f32], out: &mut [Vec<f32>]) = ops);

#[test]
fn lanes_equal_scalars() {
    let x: Vec<f32> = (0..64).map(|i| (i as f32 - 31.5) * 0.37).collect();
    let y: Vec<f32> = (0..64)
        .map(|i| ((i * 7) % 64) as f32 * 0.21 - 6.0)
        .collect();
    for tier in Tier::available() {
        let mut out = vec![Vec::new(); 11];
        // SAFETY: the slices are as long as each other.
        unsafe { run_ops(tier, &x, &y, &mut out) };
        for i in 0..64 {
            let (a, b) = (x[i], y[i]);
            let want = [
                a + b,
                a.mul_add(b, b),
                (-a).mul_add(b, b),
                a.max(b),
                if a > b { a } else { 0.0 },
                a.round_ties_even(),
                f64::from(a).exp() as f32,
                f64::from(a).exp2() as f32,
                x[i ^ 1],
                if i % 2 == 0 { -a } else { a },
                a / b,
            ];
            for (op, (o, w)) in out.iter().zip(want).enumerate() {
                // The polynomials' bound is 1.5e-7 (power) and 3e-7 (exp); the rest differs by one rounding at most.
                let tol = 4e-7 * w.abs().max(1.0e-3) + if op == 1 || op == 2 { 1e-5 } else { 0.0 };
                assert!(
                    (o[i] - w).abs() <= tol,
                    "{tier} op {op} lane {i}: {} not {w}",
                    o[i]
                );
            }
        }
    }
}

#[inline(always)]
unsafe fn round_trip<S: Simd, T: Lane>(
    x: &[f32],
    out: &mut [T],
    back: &mut [f32],
    sums: &mut [f32],
) {
    let mut i = 0;
    while i < x.len() {
        let n = S::LANES.min(x.len() - i);
        // SAFETY: n lanes from i are inside the slices; `sums` has a place for each vector.
        unsafe {
            if n == S::LANES {
                T::store::<S>(out.as_mut_ptr().add(i), S::load(x.as_ptr().add(i)));
                S::store(back.as_mut_ptr().add(i), T::load::<S>(out.as_ptr().add(i)));
            } else {
                T::store_n::<S>(out.as_mut_ptr().add(i), n, S::load_n(x.as_ptr().add(i), n));
                S::store_n(
                    back.as_mut_ptr().add(i),
                    n,
                    T::load_n::<S>(out.as_ptr().add(i), n),
                );
            }
            sums[0] += S::sum(S::load_n(x.as_ptr().add(i), n));
            sums[1] = sums[1].max(S::max_lane(S::load_n(x.as_ptr().add(i), n)));
        }
        i += n;
    }
}
tiered!(fn run_round_trip[T: Lane][T](x: &[f32], out: &mut [T], back: &mut [f32], sums: &mut [f32]) = round_trip);

fn conversions<T: Lane>() {
    // Ties, carries into the exponent, negative numbers; finite and normal in both formats.
    let x: Vec<f32> = (0..83)
        .map(|i| {
            f32::from_bits(0x3f80_0000 + i * 0x1234 + 0x8000) * if i % 3 == 0 { -1.0 } else { 1.0 }
        })
        .collect();
    for tier in Tier::available() {
        let (mut out, mut back) = (vec![T::from_f32(0.0); 83], vec![0.0; 83]);
        let mut sums = [0.0; 2];
        // SAFETY: the slices are of one length.
        unsafe { run_round_trip(tier, &x, &mut out, &mut back, &mut sums) };
        for i in 0..83 {
            assert_eq!(out[i], T::from_f32(x[i]), "{tier} {} lane {i}", T::DTYPE);
            assert_eq!(
                back[i],
                T::from_f32(x[i]).to_f32(),
                "{tier} {} lane {i}",
                T::DTYPE
            );
        }
        let sum: f64 = x.iter().map(|&v| f64::from(v)).sum();
        assert!(
            (f64::from(sums[0]) - sum).abs() <= 1e-4,
            "{tier}: f32 sums of 83 numbers near 1"
        );
        assert_eq!(sums[1], x.iter().copied().fold(0.0, f32::max));
    }
}

#[test]
fn conversions_round_to_nearest_even() {
    conversions::<f32>();
    conversions::<bf16>();
    conversions::<f16>();
}

/// NaN, infinities, zeros and what overflows, by `store` and `load` of whole vectors and tails.
fn special_numbers_convert<T: Lane>() {
    let special = [
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        f32::MAX,
        -65_520.0,
        65_519.0,
    ];
    let x: Vec<f32> = special.into_iter().cycle().take(43).collect();
    for tier in Tier::available() {
        let (mut out, mut back) = (vec![T::from_f32(0.0); 43], vec![0.0; 43]);
        // SAFETY: the slices are of one length.
        unsafe { run_round_trip(tier, &x, &mut out, &mut back, &mut [0.0; 2]) };
        for i in 0..43 {
            let want = T::from_f32(x[i]).to_f32();
            let same = back[i].to_bits() == want.to_bits() || (back[i].is_nan() && want.is_nan());
            assert!(
                same,
                "{tier} {}: {} gives {}, not {want}",
                T::DTYPE,
                x[i],
                back[i]
            );
        }
    }
}

#[test]
fn conversions_keep_special_numbers() {
    special_numbers_convert::<f32>();
    special_numbers_convert::<bf16>();
    special_numbers_convert::<f16>();
}

#[inline(always)]
unsafe fn with_nan<S: Simd>(out: &mut [f32; 3]) {
    // SAFETY: no memory is touched.
    unsafe {
        let (nan, one) = (S::splat(f32::NAN), S::splat(1.0));
        *out = [
            S::max_lane(S::max(nan, one)),
            S::sum(S::max(one, nan)),
            S::sum(S::select_gt(nan, one, nan, one)) / S::LANES as f32,
        ];
    }
}
tiered!(fn run_with_nan(out: &mut [f32; 3]) = with_nan);

/// Softmax relies on it: a maximum drops the NaN of a score, and the exponent keeps that of its argument.
#[test]
fn a_maximum_is_its_second_operand_if_one_is_nan() {
    for tier in Tier::available() {
        let mut out = [0.0; 3];
        // SAFETY: the tier is available.
        unsafe { run_with_nan(tier, &mut out) };
        assert!(
            out[0] == 1.0 && out[1].is_nan() && out[2] == 1.0,
            "{tier}: {out:?}"
        );
    }
}
