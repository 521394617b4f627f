//! Arithmetic on integers.

use crate::scalar::Found;
use crate::scalar::modifiers::Modifiers;
use crate::types::Type;

/// An integer type of PTX, in the low bits of a register.
pub(crate) trait Int: Copy + Ord + 'static {
    const BITS: u32;
    fn of(register: u64) -> Self;
    fn register(self) -> u64;
    fn wide(self) -> i128;
    fn of_wide(value: i128) -> Self;
    const LEAST: Self;
    const GREATEST: Self;
}

macro_rules! int {
    ($($int:ty: $unsigned:ty),*) => { $(
        impl Int for $int {
            const BITS: u32 = <$int>::BITS;
            fn of(register: u64) -> Self {
                register as Self
            }
            fn register(self) -> u64 {
                u64::from(self as $unsigned)
            }
            fn wide(self) -> i128 {
                self as i128
            }
            fn of_wide(value: i128) -> Self {
                value as Self
            }
            const LEAST: Self = Self::MIN;
            const GREATEST: Self = Self::MAX;
        }
    )* };
}
int!(i8: u8, u8: u8, i16: u16, u16: u16, i32: u32, u32: u32, i64: u64, u64: u64);

/// The instance of a generic function for the integer type that an opcode names.
macro_rules! for_int {
    ($ty:expr, $f:ident) => {
        match $ty {
            Type::U16 | Type::B16 => &$f::<u16> as crate::scalar::ScalarFn,
            Type::S16 => &$f::<i16>,
            Type::U32 | Type::B32 => &$f::<u32>,
            Type::S32 => &$f::<i32>,
            Type::U64 | Type::B64 => &$f::<u64>,
            Type::S64 => &$f::<i64>,
            _ => return None,
        }
    };
}

// Sums and products are computed in 128 bits, where they cannot wrap, except the products of two u64.
fn add<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    T::of(a.wrapping_add(b)).register()
}

fn sub<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    T::of(a.wrapping_sub(b)).register()
}

fn add_sat<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    saturated::<T>(T::of(a).wide() + T::of(b).wide())
}

fn sub_sat<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    saturated::<T>(T::of(a).wide() - T::of(b).wide())
}

fn saturated<T: Int>(value: i128) -> u64 {
    T::of_wide(value.clamp(T::LEAST.wide(), T::GREATEST.wide())).register()
}

fn mul_lo<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    T::of(a.wrapping_mul(b)).register()
}

fn mul_hi<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    let (a, b) = (T::of(a).wide(), T::of(b).wide());
    T::of_wide(a.wrapping_mul(b) >> T::BITS).register()
}

fn mul_hi_u64(a: u64, b: u64, _: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

/// The whole product of two 16-bit or 32-bit integers, as a register of twice the width.
fn mul_wide<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    let product = (T::of(a).wide() * T::of(b).wide()) as u64;
    if T::BITS == 16 {
        product & 0xffff_ffff
    } else {
        product
    }
}

fn mad_lo<T: Int>(a: u64, b: u64, c: u64) -> u64 {
    T::of(a.wrapping_mul(b).wrapping_add(c)).register()
}

fn mad_hi<T: Int>(a: u64, b: u64, c: u64) -> u64 {
    T::of(mul_hi::<T>(a, b, 0).wrapping_add(c)).register()
}

fn mad_hi_u64(a: u64, b: u64, c: u64) -> u64 {
    mul_hi_u64(a, b, 0).wrapping_add(c)
}

fn mad_wide<T: Int>(a: u64, b: u64, c: u64) -> u64 {
    let sum = mul_wide::<T>(a, b, 0).wrapping_add(c);
    if T::BITS == 16 {
        sum & 0xffff_ffff
    } else {
        sum
    }
}

/// The product of the low 24 bits, low or high part.
fn mul24<T: Int, const HIGH: bool>(a: u64, b: u64, _: u64) -> u64 {
    let low = |x: u64| {
        if T::LEAST.wide() < 0 {
            ((x << 40) as i64 >> 40) as i128
        } else {
            (x & 0xff_ffff) as i128
        }
    };
    let product = low(a) * low(b);
    T::of_wide(if HIGH { product >> 16 } else { product }).register()
}

fn mad24<T: Int, const HIGH: bool>(a: u64, b: u64, c: u64) -> u64 {
    T::of(mul24::<T, HIGH>(a, b, 0).wrapping_add(c)).register()
}

/// A division by zero gives all ones, as GPUs do; the least number divided by -1 wraps.
fn div<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    let (a, b) = (T::of(a).wide(), T::of(b).wide());
    T::of_wide(a.checked_div(b).unwrap_or(-1)).register()
}

/// The remainder of a division by zero is the dividend.
fn rem<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    let (a, b) = (T::of(a).wide(), T::of(b).wide());
    T::of_wide(a.checked_rem(b).unwrap_or(a)).register()
}

fn min<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    T::of(a).min(T::of(b)).register()
}

fn max<T: Int>(a: u64, b: u64, _: u64) -> u64 {
    T::of(a).max(T::of(b)).register()
}

fn neg<T: Int>(a: u64, _: u64, _: u64) -> u64 {
    T::of(a.wrapping_neg()).register()
}

fn abs<T: Int>(a: u64, _: u64, _: u64) -> u64 {
    T::of_wide(T::of(a).wide().abs()).register()
}

/// `|a - b| + c`
fn sad<T: Int>(a: u64, b: u64, c: u64) -> u64 {
    let distance = (T::of(a).wide() - T::of(b).wide()).abs();
    T::of((distance as u64).wrapping_add(c)).register()
}

/// The sum of four products of bytes, and `c`.
fn dp4a<const A: bool, const B: bool>(a: u64, b: u64, c: u64) -> u64 {
    let byte = |x: u64, i: usize, signed: bool| {
        let byte = (x >> (8 * i)) as u8;
        if signed {
            i64::from(byte as i8)
        } else {
            i64::from(byte)
        }
    };
    let sum: i64 = (0..4).map(|i| byte(a, i, A) * byte(b, i, B)).sum();
    u64::from((sum as u32).wrapping_add(c as u32))
}

pub(super) fn lookup(m: &Modifiers) -> Found {
    let sat_s32 = m.sat && m.ty == Type::S32;
    if !m.ty.is_integer() || (!m.plain() && !sat_s32) {
        return None;
    }
    let rest = m.rest.as_slice();
    if m.name == "dp4a" && rest.is_empty() && !m.sat {
        let types = (m.first_type.unwrap_or(m.ty), m.ty);
        return Some((
            match types {
                (Type::U32, Type::U32) => &dp4a::<false, false> as crate::scalar::ScalarFn,
                (Type::S32, Type::S32) => &dp4a::<true, true>,
                (Type::U32, Type::S32) => &dp4a::<false, true>,
                (Type::S32, Type::U32) => &dp4a::<true, false>,
                _ => return None,
            },
            3,
        ));
    }
    if m.first_type.is_some() {
        return None;
    }
    Some(match (m.name, rest, m.sat) {
        ("add", [], false) => (for_int!(m.ty, add), 2),
        ("sub", [], false) => (for_int!(m.ty, sub), 2),
        ("add", [], true) => (&add_sat::<i32>, 2),
        ("sub", [], true) => (&sub_sat::<i32>, 2),
        ("mul", ["lo"], false) => (for_int!(m.ty, mul_lo), 2),
        ("mul", ["hi"], false) if m.ty == Type::U64 => (&mul_hi_u64, 2),
        ("mul", ["hi"], false) => (for_int!(m.ty, mul_hi), 2),
        ("mul", ["wide"], false) if m.ty.size() < 8 => (for_int!(m.ty, mul_wide), 2),
        ("mad", ["lo"], false) => (for_int!(m.ty, mad_lo), 3),
        ("mad", ["hi"], false) if m.ty == Type::U64 => (&mad_hi_u64, 3),
        ("mad", ["hi"], false) => (for_int!(m.ty, mad_hi), 3),
        ("mad", ["wide"], false) if m.ty.size() < 8 => (for_int!(m.ty, mad_wide), 3),
        ("mul24", ["lo"], false) if m.ty == Type::U32 => (&mul24::<u32, false>, 2),
        ("mul24", ["lo"], false) if m.ty == Type::S32 => (&mul24::<i32, false>, 2),
        ("mul24", ["hi"], false) if m.ty == Type::U32 => (&mul24::<u32, true>, 2),
        ("mul24", ["hi"], false) if m.ty == Type::S32 => (&mul24::<i32, true>, 2),
        ("mad24", ["lo"], false) if m.ty == Type::U32 => (&mad24::<u32, false>, 3),
        ("mad24", ["lo"], false) if m.ty == Type::S32 => (&mad24::<i32, false>, 3),
        ("div", [], false) => (for_int!(m.ty, div), 2),
        ("rem", [], false) => (for_int!(m.ty, rem), 2),
        ("min", [], false) => (for_int!(m.ty, min), 2),
        ("max", [], false) => (for_int!(m.ty, max), 2),
        ("neg", [], false) if m.ty.is_signed() => (for_int!(m.ty, neg), 1),
        ("abs", [], false) if m.ty.is_signed() => (for_int!(m.ty, abs), 1),
        ("sad", [], false) => (for_int!(m.ty, sad), 3),
        _ => return None,
    })
}
