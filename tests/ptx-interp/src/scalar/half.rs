//! Arithmetic on f16 and bf16, one value or two packed ones.

use crate::scalar::modifiers::Modifiers;
use crate::scalar::rounding::{Format, Rounding, exact_sum};
use crate::scalar::{Found, ScalarFn};
use crate::types::Type;

/// A floating-point type of 16 bits.
pub(crate) trait Narrow {
    const FORMAT: Format;
    /// The NaN that GPUs produce.
    const NAN: u16;
    fn widen(bits: u16) -> f32;

    /// The bits of a value that `FORMAT.round` returned.
    fn bits(value: f64) -> u16;

    /// `high + low`, rounded.
    fn narrow(high: f64, low: f64, rounding: Rounding) -> u16 {
        if high.is_nan() {
            return Self::NAN;
        }
        Self::bits(Self::FORMAT.round(high, low, rounding))
    }
}

pub(crate) struct F16;
pub(crate) struct Bf16;

impl Narrow for Bf16 {
    const FORMAT: Format = Format::BF16;
    const NAN: u16 = 0x7fff;

    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    fn bits(value: f64) -> u16 {
        ((value as f32).to_bits() >> 16) as u16
    }
}

impl Narrow for F16 {
    const FORMAT: Format = Format::F16;
    const NAN: u16 = 0x7fff;

    fn widen(bits: u16) -> f32 {
        let (exponent, fraction) = ((bits >> 10) & 31, bits & 0x3ff);
        let magnitude = match exponent {
            31 if fraction != 0 => f32::NAN,
            31 => f32::INFINITY,
            0 => f32::from(fraction) * f32::from_bits((127 - 24) << 23),
            _ => f32::from_bits((u32::from(exponent) + 112) << 23 | u32::from(fraction) << 13),
        };
        if bits >> 15 == 1 {
            -magnitude
        } else {
            magnitude
        }
    }

    fn bits(value: f64) -> u16 {
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        let magnitude = value.abs();
        sign | if magnitude.is_infinite() {
            0x7c00
        } else if magnitude < 2f64.powi(-14) {
            (magnitude * 2f64.powi(24)) as u16
        } else {
            let bits = magnitude.to_bits();
            ((((bits >> 52) - 1008) << 10) | ((bits >> 42) & 0x3ff)) as u16
        }
    }
}

fn value<T: Narrow>(register: u64) -> f64 {
    T::widen(register as u16).into()
}

fn nearest<T: Narrow>(value: f64) -> u64 {
    T::narrow(value, 0.0, Rounding::Nearest).into()
}

fn add<T: Narrow>(a: u64, b: u64, _: u64) -> u64 {
    let (high, low) = exact_sum(value::<T>(a), value::<T>(b));
    T::narrow(high, low, Rounding::Nearest).into()
}

fn sub<T: Narrow>(a: u64, b: u64, _: u64) -> u64 {
    let (high, low) = exact_sum(value::<T>(a), -value::<T>(b));
    T::narrow(high, low, Rounding::Nearest).into()
}

fn mul<T: Narrow>(a: u64, b: u64, _: u64) -> u64 {
    nearest::<T>(value::<T>(a) * value::<T>(b))
}

fn fma<T: Narrow>(a: u64, b: u64, c: u64) -> u64 {
    let (high, low) = exact_sum(value::<T>(a) * value::<T>(b), value::<T>(c));
    T::narrow(high, low, Rounding::Nearest).into()
}

fn fma_relu<T: Narrow>(a: u64, b: u64, c: u64) -> u64 {
    let result = fma::<T>(a, b, c);
    if value::<T>(result) < 0.0 { 0 } else { result }
}

fn neg<T: Narrow>(a: u64, _: u64, _: u64) -> u64 {
    (a & 0xffff) ^ 0x8000
}

fn abs<T: Narrow>(a: u64, _: u64, _: u64) -> u64 {
    a & 0x7fff
}

fn extreme<T: Narrow, const NAN_WINS: bool, const LARGER: bool>(a: u64, b: u64, _: u64) -> u64 {
    let (x, y) = (value::<T>(a), value::<T>(b));
    if x.is_nan() || y.is_nan() {
        let other = if x.is_nan() { b } else { a };
        let both = x.is_nan() && y.is_nan();
        return if NAN_WINS || both {
            T::NAN.into()
        } else {
            other & 0xffff
        };
    }
    let a_first = if x == y { x.is_sign_negative() } else { x < y };
    (if a_first == LARGER { b } else { a }) & 0xffff
}

fn ex2<T: Narrow>(a: u64, _: u64, _: u64) -> u64 {
    nearest::<T>(value::<T>(a).exp2())
}

fn tanh<T: Narrow>(a: u64, _: u64, _: u64) -> u64 {
    nearest::<T>(value::<T>(a).tanh())
}

/// The functions for one value and for two packed ones.
macro_rules! both {
    ($m:expr, $one:expr, $($path:tt)*) => {{
        fn pair(a: u64, b: u64, c: u64) -> u64 {
            let low = $($path)*(a & 0xffff, b & 0xffff, c & 0xffff);
            let half = |x: u64| (x >> 16) & 0xffff;
            low | $($path)*(half(a), half(b), half(c)) << 16
        }
        if $one { &$($path)* as ScalarFn } else { &pair }
    }};
}

macro_rules! formats {
    ($m:expr, $f:ident $(, $more:expr)*) => {
        match $m.ty {
            Type::F16 => both!($m, true, $f::<F16 $(, $more)*>),
            Type::F16x2 => both!($m, false, $f::<F16 $(, $more)*>),
            Type::Bf16 => both!($m, true, $f::<Bf16 $(, $more)*>),
            Type::Bf16x2 => both!($m, false, $f::<Bf16 $(, $more)*>),
            _ => return None,
        }
    };
}

pub(super) fn lookup(m: &Modifiers) -> Found {
    let nearest = m.rounding.is_none_or(|r| r == Rounding::Nearest);
    let flushes = m.ftz || m.sat || m.full || m.integral;
    if m.first_type.is_some() || !m.only(&[]) || !nearest || flushes {
        return None;
    }
    if m.approx != matches!(m.name, "ex2" | "tanh") || m.relu && m.name != "fma" {
        return None;
    }
    Some(match (m.name, m.nan) {
        ("add", false) => (formats!(m, add), 2),
        ("sub", false) => (formats!(m, sub), 2),
        ("mul", false) => (formats!(m, mul), 2),
        ("fma", false) if m.relu => (formats!(m, fma_relu), 3),
        ("fma", false) => (formats!(m, fma), 3),
        ("neg", false) => (formats!(m, neg), 1),
        ("abs", false) => (formats!(m, abs), 1),
        ("min", false) => (formats!(m, extreme, false, false), 2),
        ("max", false) => (formats!(m, extreme, false, true), 2),
        ("min", true) => (formats!(m, extreme, true, false), 2),
        ("max", true) => (formats!(m, extreme, true, true), 2),
        ("ex2", false) => (formats!(m, ex2), 1),
        ("tanh", false) => (formats!(m, tanh), 1),
        _ => return None,
    })
}
