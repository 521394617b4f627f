//! Comparisons of `setp` and `set`.

use std::fmt;

use crate::scalar::Lanes;
use crate::scalar::half::{Bf16, F16, Narrow};
use crate::scalar::integer::Int;
use crate::types::Type;

/// Whether a comparison of two operands holds.
pub(crate) type Compare = &'static dyn Comparison;

/// A comparison of the operands of one lane, compiled for a whole warp.
pub(crate) trait Comparison: Sync {
    /// The lanes in which it holds.
    fn lanes(&self, a: &Lanes, b: &Lanes) -> u32;
}

impl<F: Fn(u64, u64) -> bool + Sync> Comparison for F {
    fn lanes(&self, a: &Lanes, b: &Lanes) -> u32 {
        (0..32).fold(0, |set, lane| {
            set | u32::from(self(a[lane], b[lane])) << lane
        })
    }
}

impl fmt::Debug for dyn Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Comparison")
    }
}

/// Types that `setp` compares as floats.
trait Float: 'static {
    fn of(register: u64) -> f64;
}

struct Single<const FTZ: bool>;
struct Double;

impl<const FTZ: bool> Float for Single<FTZ> {
    fn of(register: u64) -> f64 {
        let x = f32::from_bits(register as u32);
        if FTZ && x.is_subnormal() {
            0.0
        } else {
            x.into()
        }
    }
}

impl Float for Double {
    fn of(register: u64) -> f64 {
        f64::from_bits(register)
    }
}

impl Float for F16 {
    fn of(register: u64) -> f64 {
        <Self as Narrow>::widen(register as u16).into()
    }
}

impl Float for Bf16 {
    fn of(register: u64) -> f64 {
        <Self as Narrow>::widen(register as u16).into()
    }
}

fn integers<T: Int>(name: &str) -> Option<Compare> {
    Some(match name {
        "eq" => &|a, b| T::of(a) == T::of(b),
        "ne" => &|a, b| T::of(a) != T::of(b),
        "lt" | "lo" => &|a, b| T::of(a) < T::of(b),
        "le" | "ls" => &|a, b| T::of(a) <= T::of(b),
        "gt" | "hi" => &|a, b| T::of(a) > T::of(b),
        "ge" | "hs" => &|a, b| T::of(a) >= T::of(b),
        _ => return None,
    })
}

/// Whether an operand is NaN.
fn unordered<T: Float>(a: u64, b: u64) -> bool {
    T::of(a).is_nan() || T::of(b).is_nan()
}

/// A comparison is false for NaN, and one that ends in `u` is true; `ne` is false too.
fn floats<T: Float>(name: &str) -> Option<Compare> {
    Some(match name {
        "eq" => &|a, b| T::of(a) == T::of(b),
        "ne" => &|a, b| T::of(a) < T::of(b) || T::of(a) > T::of(b),
        "lt" => &|a, b| T::of(a) < T::of(b),
        "le" => &|a, b| T::of(a) <= T::of(b),
        "gt" => &|a, b| T::of(a) > T::of(b),
        "ge" => &|a, b| T::of(a) >= T::of(b),
        "equ" => &|a, b| T::of(a) == T::of(b) || unordered::<T>(a, b),
        "neu" => &|a, b| T::of(a) != T::of(b),
        "ltu" => &|a, b| T::of(a) < T::of(b) || unordered::<T>(a, b),
        "leu" => &|a, b| T::of(a) <= T::of(b) || unordered::<T>(a, b),
        "gtu" => &|a, b| T::of(a) > T::of(b) || unordered::<T>(a, b),
        "geu" => &|a, b| T::of(a) >= T::of(b) || unordered::<T>(a, b),
        "num" => &|a, b| !T::of(a).is_nan() && !T::of(b).is_nan(),
        "nan" => &unordered::<T>,
        _ => return None,
    })
}

/// The comparison of this name on operands of this type.
pub(crate) fn compare(name: &str, ty: Type, ftz: bool) -> Option<Compare> {
    let unsigned_only = ["lo", "ls", "hi", "hs"].contains(&name);
    if unsigned_only && (ty.is_signed() || !ty.is_integer()) || ftz && ty != Type::F32 {
        return None;
    }
    match ty {
        Type::U16 | Type::B16 => integers::<u16>(name),
        Type::S16 => integers::<i16>(name),
        Type::U32 | Type::B32 => integers::<u32>(name),
        Type::S32 => integers::<i32>(name),
        Type::U64 | Type::B64 => integers::<u64>(name),
        Type::S64 => integers::<i64>(name),
        Type::F32 if ftz => floats::<Single<true>>(name),
        Type::F32 => floats::<Single<false>>(name),
        Type::F64 => floats::<Double>(name),
        Type::F16 => floats::<F16>(name),
        Type::Bf16 => floats::<Bf16>(name),
        _ => None,
    }
}
