use std::fmt;

/// The instruction sets that CPU kernels are compiled for, those of an architecture narrowest first.
///
/// A value, not a global: a test or a user picks one by [`Device::cpu_with`](crate::Device::cpu_with). Results of different tiers differ in
/// the last bits (the order of sums follows the vector width); results of one tier never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tier {
    /// Plain Rust over arrays of eight; the compiler vectorises it.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// The same and AVX512-BF16: bf16 products in pairs.
    Avx512Bf16,
    /// NEON, which every aarch64 processor has.
    Neon,
    /// The same and the bf16 instructions of ARMv8.6 (Graviton 3, Apple M2): bf16 products of matrices of 2 × 4.
    NeonBf16,
}

impl Tier {
    /// The fastest tier of this processor.
    ///
    /// That is the widest, but for one: Intel's cores do a product of AVX512-BF16 at a quarter of the rate of one in f32, so
    /// that bf16 widened to f32 is faster. Measured on Emerald Rapids, 1024·3072·3072 on two threads: 123 ms by AVX512-BF16,
    /// 63 ms by AVX-512; attention likewise. [`Device::cpu_with`](crate::Device::cpu_with) takes either.
    pub fn detect() -> Self {
        match Self::widest() {
            Self::Avx512Bf16 if !vendor_is_amd() => Self::Avx512,
            widest => widest,
        }
    }

    /// The widest tier of this processor.
    pub(crate) fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 =
                has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
            if avx2 && avx512 && has!("avx512bf16") {
                return Self::Avx512Bf16;
            }
            if avx2 && avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("bf16") {
                return Self::NeonBf16;
            }
            Self::Neon
        }
        #[cfg(not(target_arch = "aarch64"))]
        Self::Portable
    }

    /// Whether this processor can run the tier.
    pub fn is_available(self) -> bool {
        let compiled = match self {
            Self::Portable => true,
            Self::Avx2 | Self::Avx512 | Self::Avx512Bf16 => cfg!(target_arch = "x86_64"),
            Self::Neon | Self::NeonBf16 => cfg!(target_arch = "aarch64"),
        };
        compiled && self <= Self::widest()
    }

    /// Whether the tier has an instruction that multiplies bf16 without widening them.
    pub(crate) fn multiplies_bf16(self) -> bool {
        matches!(self, Self::Avx512Bf16 | Self::NeonBf16)
    }

    /// Every tier that this processor can run, narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        ALL.into_iter().filter(|t| t.is_available())
    }
}

/// The tiers of all architectures.
pub(crate) const ALL: [Tier; 6] = [
    Tier::Portable,
    Tier::Avx2,
    Tier::Avx512,
    Tier::Avx512Bf16,
    Tier::Neon,
    Tier::NeonBf16,
];

/// Whether this processor says that it is AMD's.
#[cfg(target_arch = "x86_64")]
fn vendor_is_amd() -> bool {
    // SAFETY: every x86-64 processor has CPUID, and leaf 0 of it.
    #[allow(unused_unsafe, reason = "safe in newer versions of Rust")]
    let id = unsafe { std::arch::x86_64::__cpuid(0) };
    let name = [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat();
    name == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn vendor_is_amd() -> bool {
    false
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Neon => "neon",
            Self::NeonBf16 => "neon-bf16",
        })
    }
}

/// One of the names that [`Tier`] displays as.
impl std::str::FromStr for Tier {
    type Err = crate::Error;
    fn from_str(name: &str) -> crate::Result<Self> {
        let known = ALL.iter().find(|t| t.to_string() == name);
        match known {
            Some(tier) if tier.is_available() => Ok(*tier),
            Some(tier) => Err(crate::Error::Device {
                op: "tier",
                reason: format!("this processor has no {tier}; it has {}", Self::widest()),
            }),
            None => Err(crate::Error::Device {
                op: "tier",
                reason: format!(
                    "no tier is called {name:?}; they are {}",
                    ALL.map(|t| t.to_string()).join(", ")
                ),
            }),
        }
    }
}
