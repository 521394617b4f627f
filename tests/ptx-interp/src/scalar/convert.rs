//! `cvt`: between integers, between floats, and across.

use crate::scalar::half::{Bf16, F16, Narrow};
use crate::scalar::modifiers::Modifiers;
use crate::scalar::rounding::{Format, Rounding, narrow_f32};
use crate::types::{Type, sign_extended, truncated};

/// A conversion between two types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Conversion {
    pub(crate) to: Type,
    pub(crate) from: Type,
    rounding: Rounding,
    /// Rounds to an integer that stays a float.
    integral: bool,
    ftz: bool,
    sat: bool,
    relu: bool,
}

fn is_float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
}

/// The conversion that an opcode names.
pub(crate) fn conversion(opcode: &[&str]) -> Option<Conversion> {
    let m = Modifiers::of(opcode)?;
    let (to, from) = (m.first_type?, m.ty);
    let packed = matches!(to, Type::F16x2 | Type::Bf16x2);
    let known = |ty: Type| ty.is_integer() || is_float(ty);
    let sound = m.name == "cvt" && m.only(&[]) && !m.approx && !m.full && known(from);
    let narrow = matches!(to, Type::F16 | Type::Bf16 | Type::Tf32) || packed;
    let special = packed || to == Type::Tf32;
    if !sound || !(known(to) || special) || special && from != Type::F32 || m.relu && !narrow {
        return None;
    }
    // f32 alone is flushed here, and these results do not saturate.
    if m.ftz && to != Type::F32 && from != Type::F32 || m.sat && (special || to == Type::Bf16) {
        return None;
    }
    let rounding = m.rounding.unwrap_or(Rounding::Nearest);
    // `.rna` exists for tf32 only, and tf32 needs a rounding.
    if (rounding == Rounding::NearestAway) != (to == Type::Tf32 && rounding != Rounding::Nearest) {
        return None;
    }
    Some(Conversion {
        to,
        from,
        rounding,
        integral: m.integral,
        ftz: m.ftz,
        sat: m.sat,
        relu: m.relu,
    })
}

impl Conversion {
    /// Whether the result packs two operands.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.to, Type::F16x2 | Type::Bf16x2)
    }

    /// The result for `a`; for a packed result `a` is the upper half and `b` the lower one.
    pub(crate) fn of(&self, a: u64, b: u64) -> u64 {
        match self.to {
            Type::F16x2 => {
                self.narrowed(self.float(a), Type::F16) << 16
                    | self.narrowed(self.float(b), Type::F16)
            }
            Type::Bf16x2 => {
                self.narrowed(self.float(a), Type::Bf16) << 16
                    | self.narrowed(self.float(b), Type::Bf16)
            }
            to => match (is_float(self.from), to.is_integer()) {
                (true, true) => self.integer_from_float(self.float(a)),
                (true, false) => self.narrowed(self.float(a), to),
                (false, true) => self.between_integers(a),
                (false, false) => self.float_from_integer(self.integer(a)),
            },
        }
    }

    fn integer(&self, register: u64) -> i128 {
        let size = self.from.size();
        if self.from.is_signed() {
            sign_extended(register, size).into()
        } else {
            truncated(register, size).into()
        }
    }

    fn float(&self, register: u64) -> f64 {
        match self.from {
            Type::F16 => F16::widen(register as u16).into(),
            Type::Bf16 => Bf16::widen(register as u16).into(),
            Type::F32 => {
                let x = f32::from_bits(register as u32);
                if self.ftz && x.is_subnormal() {
                    0f64.copysign(x.into())
                } else {
                    x.into()
                }
            }
            _ => f64::from_bits(register),
        }
    }

    fn between_integers(&self, register: u64) -> u64 {
        let value = self.integer(register);
        let value = if self.sat {
            value.clamp(self.least(), self.greatest())
        } else {
            value
        };
        truncated(value as u64, self.to.size())
    }

    fn least(&self) -> i128 {
        if self.to.is_signed() {
            -(1 << (self.to.size() * 8 - 1))
        } else {
            0
        }
    }

    fn greatest(&self) -> i128 {
        let bits = self.to.size() * 8 - usize::from(self.to.is_signed());
        (1 << bits) - 1
    }

    /// A value out of range becomes the nearest integer of the type. NaN becomes 0, and where one of the two types has 64 bits
    /// the highest bit alone.
    fn integer_from_float(&self, value: f64) -> u64 {
        if value.is_nan() && (self.from == Type::F64 || self.to.size() == 8) {
            return 1 << (self.to.size() * 8 - 1);
        }
        let whole = integral(value, self.rounding);
        // `as` saturates, and i128 holds the range of every type.
        let clamped = (whole as i128).clamp(self.least(), self.greatest());
        truncated(clamped as u64, self.to.size())
    }

    fn float_from_integer(&self, value: i128) -> u64 {
        // A 64-bit integer is the sum of two f64.
        let high = value as f64;
        let low = (value - high as i128) as f64;
        match self.to {
            Type::F32 => u64::from(narrow_f32(high, low, self.rounding).to_bits()),
            Type::F16 => F16::narrow(high, low, self.rounding).into(),
            Type::Bf16 => Bf16::narrow(high, low, self.rounding).into(),
            _ => directed_f64(high, low, self.rounding).to_bits(),
        }
    }

    fn narrowed(&self, value: f64, to: Type) -> u64 {
        let mut value = if self.integral {
            integral(value, self.rounding)
        } else {
            value
        };
        if self.relu && value < 0.0 {
            value = 0.0;
        }
        if self.sat {
            value = if value > 0.0 { value.min(1.0) } else { 0.0 };
        }
        match to {
            Type::F16 => F16::narrow(value, 0.0, self.rounding).into(),
            Type::Bf16 => Bf16::narrow(value, 0.0, self.rounding).into(),
            _ if value.is_nan() && to != Type::F64 => 0x7fff_ffff,
            Type::Tf32 => {
                u64::from((Format::TF32.round(value, 0.0, self.rounding) as f32).to_bits())
            }
            Type::F32 => {
                let x = narrow_f32(value, 0.0, self.rounding);
                let x = if self.ftz && x.is_subnormal() {
                    0f32.copysign(x)
                } else {
                    x
                };
                u64::from(x.to_bits())
            }
            _ if value.is_nan() => 0x7fff_ffff_ffff_ffff,
            _ => value.to_bits(),
        }
    }
}

/// A float rounded to an integer.
fn integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest | Rounding::NearestAway => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

/// `high`, or its neighbour on the side of `low` if the direction asks for it.
fn directed_f64(high: f64, low: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest | Rounding::NearestAway => high,
        Rounding::Down if low < 0.0 => high.next_down(),
        Rounding::Up if low > 0.0 => high.next_up(),
        Rounding::Zero if low < 0.0 && high > 0.0 => high.next_down(),
        Rounding::Zero if low > 0.0 && high < 0.0 => high.next_up(),
        _ => high,
    }
}
