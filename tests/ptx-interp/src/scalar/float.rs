//! Arithmetic and functions on f32.

use crate::scalar::modifiers::Modifiers;
use crate::scalar::rounding::{Rounding, exact_sum, narrow_f32};
use crate::scalar::{Found, Lanes, Lanewise, ScalarFn};
use crate::types::Type;

/// The NaN that GPUs produce.
const NAN: u32 = 0x7fff_ffff;

fn bits(x: f32) -> u64 {
    u64::from(if x.is_nan() { NAN } else { x.to_bits() })
}

/// Flushes a subnormal number to a zero of its sign.
fn flushed<const FTZ: bool>(x: f32) -> f32 {
    if FTZ && x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

fn input<const FTZ: bool>(register: u64) -> f32 {
    flushed::<FTZ>(f32::from_bits(register as u32))
}

fn output<const FTZ: bool, const SAT: bool>(x: f32) -> u64 {
    let x = flushed::<FTZ>(x);
    if !SAT {
        return bits(x);
    }
    // NaN becomes 0, and so does -0.
    bits(if x > 0.0 { x.min(1.0) } else { 0.0 })
}

const RN: u8 = 0;
const RZ: u8 = 1;
const RM: u8 = 2;

fn mode<const R: u8>() -> Rounding {
    match R {
        RN => Rounding::Nearest,
        RZ => Rounding::Zero,
        RM => Rounding::Down,
        _ => Rounding::Up,
    }
}

/// Rounds `high + low`; a sum that cancels to zero is -0 when rounding down.
fn directed_sum<const R: u8>((high, low): (f64, f64), cancelled: bool) -> f32 {
    if high == 0.0 && cancelled {
        return if R == RM { -0.0 } else { 0.0 };
    }
    narrow_f32(high, low, mode::<R>())
}

fn sum<const R: u8, const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> u64 {
    if R == RN {
        return output::<FTZ, SAT>(a + b);
    }
    let cancelled = a == -b && a != 0.0 || a == 0.0 && b == 0.0 && a.to_bits() != b.to_bits();
    output::<FTZ, SAT>(directed_sum::<R>(exact_sum(a.into(), b.into()), cancelled))
}

fn add<const R: u8, const FTZ: bool, const SAT: bool>(a: u64, b: u64, _: u64) -> u64 {
    sum::<R, FTZ, SAT>(input::<FTZ>(a), input::<FTZ>(b))
}

fn sub<const R: u8, const FTZ: bool, const SAT: bool>(a: u64, b: u64, _: u64) -> u64 {
    sum::<R, FTZ, SAT>(input::<FTZ>(a), -input::<FTZ>(b))
}

fn mul<const R: u8, const FTZ: bool, const SAT: bool>(a: u64, b: u64, _: u64) -> u64 {
    let (a, b) = (input::<FTZ>(a), input::<FTZ>(b));
    output::<FTZ, SAT>(match R {
        RN => a * b,
        // The product of two f32 is exact in f64.
        _ => narrow_f32(f64::from(a) * f64::from(b), 0.0, mode::<R>()),
    })
}

/// `a * b + c`, and whether it is as if rounded once. In f64 the product is exact; that the sum is rounded there and again here
/// matters only where it is a tie of f32, or subnormal there.
fn fused(a: f32, b: f32, c: f32) -> (f32, bool) {
    let sum = f64::from(a) * f64::from(b) + f64::from(c);
    let tie = sum.to_bits() & 0x1fff_ffff == 0x1000_0000;
    let subnormal = (sum.abs() < f32::MIN_POSITIVE.into()) & (sum != 0.0);
    (sum as f32, !(tie | subnormal))
}

/// `fma.rn`, the most frequent instruction: vector instructions, but for the lanes in which two roundings may differ from one.
struct Fused<const FTZ: bool, const SAT: bool>;

impl<const FTZ: bool, const SAT: bool> Lanewise for Fused<FTZ, SAT> {
    fn lanes(&self, mask: u32, [a, b, c]: [&Lanes; 3]) -> Lanes {
        if mask != u32::MAX {
            return fma::<RN, FTZ, SAT>.lanes(mask, [a, b, c]);
        }
        let (mut out, mut all_right) = ([0; 32], true);
        for lane in 0..32 {
            let [a, b, c] = [a, b, c].map(|x| input::<FTZ>(x[lane]));
            let (result, right) = fused(a, b, c);
            out[lane] = output::<FTZ, SAT>(result);
            all_right &= right;
        }
        if !all_right {
            for lane in 0..32 {
                let [x, y, z] = [a, b, c].map(|x| input::<FTZ>(x[lane]));
                if !fused(x, y, z).1 {
                    out[lane] = fma::<RN, FTZ, SAT>(a[lane], b[lane], c[lane]);
                }
            }
        }
        out
    }
}

fn fma<const R: u8, const FTZ: bool, const SAT: bool>(a: u64, b: u64, c: u64) -> u64 {
    let (a, b, c) = (input::<FTZ>(a), input::<FTZ>(b), input::<FTZ>(c));
    if R == RN {
        return output::<FTZ, SAT>(a.mul_add(b, c));
    }
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let opposite = product == -c && (product != 0.0 || product.to_bits() != c.to_bits());
    output::<FTZ, SAT>(directed_sum::<R>(exact_sum(product, c), opposite))
}

fn div<const R: u8, const FTZ: bool, const SAT: bool>(a: u64, b: u64, _: u64) -> u64 {
    let (a, b) = (input::<FTZ>(a), input::<FTZ>(b));
    if R == RN {
        return output::<FTZ, SAT>(a / b);
    }
    let (wide_a, wide_b) = (f64::from(a), f64::from(b));
    let quotient = wide_a / wide_b;
    let rest = if quotient.is_finite() {
        (-quotient).mul_add(wide_b, wide_a) / wide_b
    } else {
        0.0
    };
    output::<FTZ, SAT>(narrow_f32(quotient, rest, mode::<R>()))
}

fn rcp<const R: u8, const FTZ: bool, const SAT: bool>(a: u64, _: u64, _: u64) -> u64 {
    div::<R, FTZ, SAT>(u64::from(1f32.to_bits()), a, 0)
}

fn sqrt<const R: u8, const FTZ: bool, const SAT: bool>(a: u64, _: u64, _: u64) -> u64 {
    let a = input::<FTZ>(a);
    if R == RN || a < 0.0 || !a.is_finite() {
        return output::<FTZ, SAT>(a.sqrt());
    }
    let root = f64::from(a).sqrt();
    let rest = (-root).mul_add(root, a.into());
    output::<FTZ, SAT>(narrow_f32(root, rest, mode::<R>()))
}

fn abs<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    u64::from(input::<FTZ>(a).abs().to_bits())
}

fn neg<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    u64::from((-input::<FTZ>(a)).to_bits())
}

/// The other operand if one is NaN, unless `NAN_WINS`; -0 is less than +0.
fn extreme<const FTZ: bool, const NAN_WINS: bool, const LARGER: bool>(
    a: u64,
    b: u64,
    _: u64,
) -> u64 {
    let (a, b) = (input::<FTZ>(a), input::<FTZ>(b));
    if a.is_nan() || b.is_nan() {
        let other = if a.is_nan() { b } else { a };
        return if NAN_WINS {
            u64::from(NAN)
        } else {
            bits(other)
        };
    }
    let a_first = if a == b { a.is_sign_negative() } else { a < b };
    bits(if a_first == LARGER { b } else { a })
}

/// The approximations of the special unit, here as good as f64.
fn approximate<const FTZ: bool>(a: u64, f: fn(f64) -> f64) -> u64 {
    output::<FTZ, false>(f(input::<FTZ>(a).into()) as f32)
}

fn ex2<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    approximate::<FTZ>(a, f64::exp2)
}

fn lg2<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    approximate::<FTZ>(a, f64::log2)
}

fn rsqrt<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    approximate::<FTZ>(a, |x| 1.0 / x.sqrt())
}

fn sin<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    approximate::<FTZ>(a, f64::sin)
}

fn cos<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    approximate::<FTZ>(a, f64::cos)
}

fn tanh<const FTZ: bool>(a: u64, _: u64, _: u64) -> u64 {
    approximate::<FTZ>(a, f64::tanh)
}

/// `b` with the sign of `a`.
fn copysign(a: u64, b: u64, _: u64) -> u64 {
    (b & 0x7fff_ffff) | (a & 0x8000_0000)
}

fn testp<const WHAT: u8>(a: u64, _: u64, _: u64) -> u64 {
    let a = f32::from_bits(a as u32);
    u64::from(match WHAT {
        0 => a.is_finite(),
        1 => a.is_infinite(),
        2 => !a.is_nan(),
        3 => a.is_nan(),
        4 => a.is_normal(),
        _ => a.is_subnormal(),
    })
}

/// One function for each rounding and each combination of `.ftz` and `.sat`.
macro_rules! rounded {
    ($m:expr, $f:ident) => {{
        let pick: [[ScalarFn; 4]; 4] = [
            [
                &$f::<0, false, false>,
                &$f::<0, true, false>,
                &$f::<0, false, true>,
                &$f::<0, true, true>,
            ],
            [
                &$f::<1, false, false>,
                &$f::<1, true, false>,
                &$f::<1, false, true>,
                &$f::<1, true, true>,
            ],
            [
                &$f::<2, false, false>,
                &$f::<2, true, false>,
                &$f::<2, false, true>,
                &$f::<2, true, true>,
            ],
            [
                &$f::<3, false, false>,
                &$f::<3, true, false>,
                &$f::<3, false, true>,
                &$f::<3, true, true>,
            ],
        ];
        let rounding = match $m.rounding.unwrap_or(Rounding::Nearest) {
            Rounding::Nearest => 0,
            Rounding::Zero => 1,
            Rounding::Down => 2,
            Rounding::Up => 3,
            Rounding::NearestAway => return None,
        };
        pick[rounding][usize::from($m.ftz) + 2 * usize::from($m.sat)]
    }};
}

macro_rules! flushing {
    ($m:expr, $f:ident $(, $more:expr)*) => {
        if $m.ftz { &$f::<true $(, $more)*> as ScalarFn } else { &$f::<false $(, $more)*> }
    };
}

pub(super) fn lookup(m: &Modifiers) -> Found {
    let nan = m.nan && !matches!(m.name, "min" | "max");
    if m.ty != Type::F32 || m.first_type.is_some() || m.integral || m.relu || nan {
        return None;
    }
    let what = match m.rest.as_slice() {
        [] => None,
        [one] => Some(*one),
        _ => return None,
    };
    let exact = !m.approx && !m.full;
    let special = m.approx && m.rounding.is_none() && !m.sat;
    let simple = m.rounding.is_none() && exact && !m.sat;
    Some(match (m.name, what) {
        ("add", None) if exact => (rounded!(m, add), 2),
        ("sub", None) if exact => (rounded!(m, sub), 2),
        ("mul", None) if exact => (rounded!(m, mul), 2),
        ("fma" | "mad", None) if exact && m.rounding == Some(Rounding::Nearest) => {
            let f: ScalarFn = match (m.ftz, m.sat) {
                (false, false) => &Fused::<false, false>,
                (true, false) => &Fused::<true, false>,
                (false, true) => &Fused::<false, true>,
                (true, true) => &Fused::<true, true>,
            };
            (f, 3)
        }
        ("fma" | "mad", None) if exact && m.rounding.is_some() => (rounded!(m, fma), 3),
        ("div", None) if exact == m.rounding.is_some() => (rounded!(m, div), 2),
        ("rcp", None) if exact == m.rounding.is_some() => (rounded!(m, rcp), 1),
        ("sqrt", None) if exact == m.rounding.is_some() => (rounded!(m, sqrt), 1),
        ("rsqrt", None) if special => (flushing!(m, rsqrt), 1),
        ("ex2", None) if special => (flushing!(m, ex2), 1),
        ("lg2", None) if special => (flushing!(m, lg2), 1),
        ("sin", None) if special => (flushing!(m, sin), 1),
        ("cos", None) if special => (flushing!(m, cos), 1),
        ("tanh", None) if special => (flushing!(m, tanh), 1),
        ("abs", None) if simple => (flushing!(m, abs), 1),
        ("neg", None) if simple => (flushing!(m, neg), 1),
        ("min", None) if simple && m.nan => (flushing!(m, extreme, true, false), 2),
        ("max", None) if simple && m.nan => (flushing!(m, extreme, true, true), 2),
        ("min", None) if simple => (flushing!(m, extreme, false, false), 2),
        ("max", None) if simple => (flushing!(m, extreme, false, true), 2),
        ("copysign", None) if simple => (&copysign, 2),
        ("testp", Some("finite")) if simple => (&testp::<0>, 1),
        ("testp", Some("infinite")) if simple => (&testp::<1>, 1),
        ("testp", Some("number")) if simple => (&testp::<2>, 1),
        ("testp", Some("notanumber")) if simple => (&testp::<3>, 1),
        ("testp", Some("normal")) if simple => (&testp::<4>, 1),
        ("testp", Some("subnormal")) if simple => (&testp::<5>, 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Random;

    #[test]
    fn fused_products_are_rounded_once() {
        let mut random = Random::new(7);
        let mut draw = || {
            // Few bits and near exponents, so that ties and cancellation occur; and subnormal numbers.
            let bits = random.below(1 << 31) as u32 ^ (random.below(2) as u32) << 31;
            let narrow = bits & 0xc0ff_f000 | 0x3f00_0000;
            f32::from_bits(
                [bits, narrow, narrow & 0xffff_0000, bits & 0x80ff_ffff][random.below(4)],
            )
        };
        for _ in 0..20_000 {
            let operands: [Lanes; 3] =
                std::array::from_fn(|_| std::array::from_fn(|_| draw().to_bits().into()));
            let [a, b, c] = operands;
            let all = Fused::<false, false>.lanes(u32::MAX, [&a, &b, &c]);
            let flushed = Fused::<true, true>.lanes(u32::MAX, [&a, &b, &c]);
            for lane in 0..32 {
                let (a, b, c) = (a[lane], b[lane], c[lane]);
                assert_eq!(
                    all[lane],
                    fma::<RN, false, false>(a, b, c),
                    "{a:x} {b:x} {c:x}"
                );
                assert_eq!(
                    flushed[lane],
                    fma::<RN, true, true>(a, b, c),
                    "{a:x} {b:x} {c:x}"
                );
            }
        }
    }
}
