//! torch's generator for the CPU, and the number types of its noise.

use std::fmt;

use half::{bf16, f16};
use xdit_kernels::reserved;

use super::mt19937::Mt19937;
use super::normal;
use crate::error::{Error, Result};

/// A random generator with the state of `torch.Generator("cpu").manual_seed(seed)`.
///
/// # Examples
/// ```
/// use xdit_models::noise::Generator;
/// let mut generator = Generator::new(42);
/// let noise: Vec<f32> = generator.randn(3)?;
/// // torch.randn(3, generator=torch.Generator().manual_seed(42))
/// assert_eq!(noise, [0.336_690_37, 0.128_809_41, 0.234_462_37]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone)]
pub struct Generator {
    seed: u64,
    mt: Mt19937,
    /// The second value of the last pair of the one-by-one path.
    kept: Option<f64>,
}

impl Generator {
    /// Creates a generator seeded with `seed`. Like torch's, it uses only the lower 32 bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            mt: Mt19937::new(seed as u32),
            kept: None,
        }
    }

    /// Creates a generator from any seed that torch accepts. A negative one counts down from 2⁶⁴.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] below −2⁶³ and above 2⁶⁴ − 1.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::noise::Generator;
    /// assert_eq!(Generator::from_seed(-1)?.seed(), u64::MAX);
    /// assert!(Generator::from_seed(1 << 64).is_err());
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn from_seed(seed: i128) -> Result<Self> {
        if seed < i128::from(i64::MIN) || seed > i128::from(u64::MAX) {
            return Err(Error::invalid(
                "seed",
                seed,
                "a whole number from -2^63 to 2^64 - 1",
            ));
        }
        Ok(Self::new(seed as u64))
    }

    /// Returns the seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// `count` normal numbers, as `torch.randn(count, generator=self, dtype=T)`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the numbers do not fit in memory.
    pub fn randn<T: NoiseType>(&mut self, count: usize) -> Result<Vec<T>> {
        let mut noise = reserved("noise", count)?;
        noise.resize(count, T::default());
        self.fill(&mut noise);
        Ok(noise)
    }

    /// Overwrites `noise` with the numbers that `torch.randn(noise.len(), generator=self, dtype=T)` returns.
    pub fn fill<T: NoiseType>(&mut self, noise: &mut [T]) {
        if noise.len() < normal::BLOCK {
            for value in noise {
                *value = T::from_normal(self.next_normal());
            }
        } else {
            T::fill_blocks(self, noise);
        }
    }

    /// Returns a uniform f32 in [0, 1) with 24 random bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.mt.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// Returns a uniform f64 in [0, 1) with 53 random bits.
    fn uniform_f64(&mut self) -> f64 {
        (self.mt.next_u64() & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Returns the next normal number of the one-by-one path (`ATen/core/DistributionsHelper.h`).
    fn next_normal(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let u1 = self.uniform_f64();
        let u2 = self.uniform_f64();
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = std::f64::consts::TAU * u1;
        self.kept = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// A number type that noise can be drawn in: f32, f64, bf16 or f16.
pub trait NoiseType: Copy + Default + SealedNoise {
    /// `value`, rounded as torch rounds it.
    #[doc(hidden)]
    fn from_normal(value: f64) -> Self;

    /// Draws at least [`normal::BLOCK`] numbers.
    #[doc(hidden)]
    fn fill_blocks(generator: &mut Generator, noise: &mut [Self]);
}

/// Limits [`NoiseType`] to the types above.
pub trait SealedNoise {}
impl SealedNoise for f32 {}
impl SealedNoise for f64 {}
impl SealedNoise for half::bf16 {}
impl SealedNoise for half::f16 {}

impl NoiseType for f32 {
    fn from_normal(value: f64) -> Self {
        value as Self
    }

    fn fill_blocks(generator: &mut Generator, noise: &mut [Self]) {
        normal::fill_in_place(noise, || generator.uniform_f32(), normal::box_muller_f32);
    }
}

impl NoiseType for f64 {
    fn from_normal(value: f64) -> Self {
        value
    }

    fn fill_blocks(generator: &mut Generator, noise: &mut [Self]) {
        normal::fill_in_place(noise, || generator.uniform_f64(), normal::box_muller_f64);
    }
}

impl NoiseType for bf16 {
    fn from_normal(value: f64) -> Self {
        // c10::BFloat16 is converted from a float, which rounds twice.
        Self::from_f32(value as f32)
    }

    fn fill_blocks(generator: &mut Generator, noise: &mut [Self]) {
        normal::fill_rounded(noise, || generator.uniform_f32(), Self::from_f32);
    }
}

impl NoiseType for f16 {
    fn from_normal(value: f64) -> Self {
        Self::from_f32(value as f32)
    }

    fn fill_blocks(generator: &mut Generator, noise: &mut [Self]) {
        normal::fill_rounded(noise, || generator.uniform_f32(), Self::from_f32);
    }
}
