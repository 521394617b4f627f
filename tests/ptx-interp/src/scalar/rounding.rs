//! Rounding of exact results. An exact result is a sum of two f64, `high + low`, where `low` is less than half a unit in
//! the last place of `high`; for a result that is no such sum, `low` has the sign of what is missing.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To the nearest, ties to even (`.rn`).
    Nearest,
    /// To the nearest, ties away from zero (`.rna`).
    NearestAway,
    /// `.rz`
    Zero,
    /// `.rm`
    Down,
    /// `.rp`
    Up,
}

/// A binary floating-point format inside f64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Bits of the significand, with the hidden one.
    pub(crate) precision: i32,
    /// The exponent of the least normal number.
    pub(crate) least: i32,
    /// The greatest finite number.
    pub(crate) greatest: f64,
}

const TWO_127: f64 = (1u128 << 127) as f64;

impl Format {
    pub(crate) const F32: Self = Self {
        precision: 24,
        least: -126,
        greatest: f32::MAX as f64,
    };
    pub(crate) const F16: Self = Self {
        precision: 11,
        least: -14,
        greatest: 65504.0,
    };
    pub(crate) const BF16: Self = Self {
        precision: 8,
        least: -126,
        greatest: (2.0 - 1.0 / 128.0) * TWO_127,
    };
    pub(crate) const TF32: Self = Self {
        precision: 11,
        least: -126,
        greatest: (2.0 - 1.0 / 1024.0) * TWO_127,
    };

    /// `high + low` as a number of this format.
    pub(crate) fn round(self, high: f64, low: f64, rounding: Rounding) -> f64 {
        if high == 0.0 || !high.is_finite() {
            return high;
        }
        // All numbers here are normal in f64: the least product of two f32 is 2^-298.
        let exponent = ((high.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        // A power of two whose difference to `high` is `low` below it belongs to the binade below.
        let below = high.to_bits() << 12 == 0 && low != 0.0 && (low < 0.0) != (high < 0.0);
        let exponent = if below { exponent - 1 } else { exponent };
        let unit = power_of_two(exponent.max(self.least) - (self.precision - 1));
        let (scaled, rest) = (high / unit, low);
        let floor = scaled.floor();
        let part = scaled - floor;
        // The exact value lies between two integers, `lower` and `lower + 1`, or is `lower`.
        let (lower, part, exact) = if part == 0.0 && rest < 0.0 {
            (floor - 1.0, 1.0, false)
        } else {
            (floor, part, part == 0.0 && rest == 0.0)
        };
        let above_half = part > 0.5 || (part == 0.5 && rest > 0.0);
        let tie = part == 0.5 && rest == 0.0;
        let up = match rounding {
            _ if exact => false,
            Rounding::Nearest if tie => lower % 2.0 != 0.0,
            Rounding::NearestAway if tie => high > 0.0,
            Rounding::Nearest | Rounding::NearestAway => above_half,
            Rounding::Zero => high < 0.0,
            Rounding::Down => false,
            Rounding::Up => true,
        };
        let result = if up { lower + 1.0 } else { lower } * unit;
        if result.abs() > self.greatest {
            let stays = match rounding {
                Rounding::Nearest | Rounding::NearestAway => false,
                Rounding::Zero => true,
                Rounding::Down => high > 0.0,
                Rounding::Up => high < 0.0,
            };
            let bound = if stays { self.greatest } else { f64::INFINITY };
            return bound.copysign(high);
        }
        // A result of zero keeps the sign of the exact value.
        result.copysign(high)
    }
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// `a + b` as an exact sum `high + low` (Knuth's TwoSum).
pub(crate) fn exact_sum(a: f64, b: f64) -> (f64, f64) {
    let high = a + b;
    if !high.is_finite() {
        return (high, 0.0);
    }
    let part = high - a;
    (high, (a - (high - part)) + (b - part))
}

/// An exact value as f32.
pub(crate) fn narrow_f32(high: f64, low: f64, rounding: Rounding) -> f32 {
    Format::F32.round(high, low, rounding) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_what_the_processor_does() {
        let mut bits = 1u64;
        for _ in 0..100_000 {
            bits = bits
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            // Exponents around the range of f32.
            let x =
                f64::from_bits((bits & !(0x7ff << 52)) | ((1023 - 160 + (bits >> 20) % 320) << 52));
            assert_eq!(
                narrow_f32(x, 0.0, Rounding::Nearest).to_bits(),
                (x as f32).to_bits(),
                "{x:e}"
            );
        }
    }

    #[test]
    fn directions() {
        let third = 1.0 / 3.0;
        let down = narrow_f32(third, 0.0, Rounding::Down);
        let up = narrow_f32(third, 0.0, Rounding::Up);
        assert_eq!(up.to_bits() - down.to_bits(), 1);
        assert_eq!(narrow_f32(-third, 0.0, Rounding::Zero), -down);
        assert_eq!(narrow_f32(-third, 0.0, Rounding::Down), -up);
        assert_eq!(narrow_f32(1e300, 0.0, Rounding::Zero), f32::MAX);
        assert_eq!(narrow_f32(1e300, 0.0, Rounding::Up), f32::INFINITY);
        assert_eq!(narrow_f32(1e-300, 0.0, Rounding::Up), f32::from_bits(1));
        assert_eq!(
            narrow_f32(-1e-300, 0.0, Rounding::Up).to_bits(),
            (-0f32).to_bits()
        );
    }

    #[test]
    fn what_is_below_f64_decides() {
        // 1 plus or minus very little.
        assert_eq!(narrow_f32(1.0, 1e-30, Rounding::Up), 1.0 + f32::EPSILON);
        assert_eq!(narrow_f32(1.0, 1e-30, Rounding::Down), 1.0);
        assert_eq!(
            narrow_f32(1.0, -1e-30, Rounding::Down),
            1.0 - f32::EPSILON / 2.0
        );
        assert_eq!(narrow_f32(1.0, -1e-30, Rounding::Nearest), 1.0);
        // A tie, and what breaks it.
        let tie = 1.0 + f64::from(f32::EPSILON) / 2.0;
        assert_eq!(narrow_f32(tie, 0.0, Rounding::Nearest), 1.0);
        assert_eq!(
            narrow_f32(tie, 1e-30, Rounding::Nearest),
            1.0 + f32::EPSILON
        );
        assert_eq!(
            narrow_f32(tie, 0.0, Rounding::NearestAway),
            1.0 + f32::EPSILON
        );
    }
}
