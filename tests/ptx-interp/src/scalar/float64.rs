//! Arithmetic on f64, rounded to the nearest. Kernels use it for sums only.

use crate::scalar::Found;
use crate::scalar::modifiers::Modifiers;
use crate::scalar::rounding::Rounding;
use crate::types::Type;

fn of(register: u64) -> f64 {
    f64::from_bits(register)
}

fn bits(x: f64) -> u64 {
    if x.is_nan() {
        0x7fff_ffff_ffff_ffff
    } else {
        x.to_bits()
    }
}

fn add(a: u64, b: u64, _: u64) -> u64 {
    bits(of(a) + of(b))
}

fn sub(a: u64, b: u64, _: u64) -> u64 {
    bits(of(a) - of(b))
}

fn mul(a: u64, b: u64, _: u64) -> u64 {
    bits(of(a) * of(b))
}

fn fma(a: u64, b: u64, c: u64) -> u64 {
    bits(of(a).mul_add(of(b), of(c)))
}

fn div(a: u64, b: u64, _: u64) -> u64 {
    bits(of(a) / of(b))
}

fn rcp(a: u64, _: u64, _: u64) -> u64 {
    bits(1.0 / of(a))
}

fn rsqrt(a: u64, _: u64, _: u64) -> u64 {
    bits(1.0 / of(a).sqrt())
}

fn sqrt(a: u64, _: u64, _: u64) -> u64 {
    bits(of(a).sqrt())
}

fn abs(a: u64, _: u64, _: u64) -> u64 {
    a & !(1 << 63)
}

fn neg(a: u64, _: u64, _: u64) -> u64 {
    a ^ (1 << 63)
}

fn min(a: u64, b: u64, _: u64) -> u64 {
    // Equal numbers differ at most in the sign of zero, and -0 is less.
    if of(a) == of(b) {
        return a | b;
    }
    bits(of(a).min(of(b)))
}

fn max(a: u64, b: u64, _: u64) -> u64 {
    if of(a) == of(b) {
        return a & b;
    }
    bits(of(a).max(of(b)))
}

pub(super) fn lookup(m: &Modifiers) -> Found {
    // The start of Newton's method in f64 functions; a GPU gives fewer bits.
    if m.ty == Type::F64 && m.approx && m.ftz && m.rounding.is_none() && m.only(&[]) {
        return match m.name {
            "rcp" => Some((&rcp, 1)),
            "rsqrt" => Some((&rsqrt, 1)),
            _ => None,
        };
    }
    let nearest = m.rounding.is_none_or(|r| r == Rounding::Nearest);
    let special = m.approx || m.full || m.ftz || m.sat || m.relu || m.nan || m.integral;
    if m.ty != Type::F64 || m.first_type.is_some() || !m.only(&[]) || !nearest || special {
        return None;
    }
    Some(match m.name {
        "add" => (&add, 2),
        "sub" => (&sub, 2),
        "mul" => (&mul, 2),
        "fma" | "mad" => (&fma, 3),
        "div" => (&div, 2),
        "rcp" => (&rcp, 1),
        "sqrt" => (&sqrt, 1),
        "abs" => (&abs, 1),
        "neg" => (&neg, 1),
        "min" => (&min, 2),
        "max" => (&max, 2),
        _ => return None,
    })
}
