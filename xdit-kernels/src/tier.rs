use std::fmt;

/// The instruction sets that CPU kernels are compiled for, narrowest first.
///
/// A value, not a global: a test or a user picks one by [`Device::cpu_with`](crate::Device::cpu_with). Results of different tiers differ in
/// the last bits (the order of sums follows the vector width); results of one tier never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tier {
    /// Plain Rust over arrays of eight; the compiler vectorises it (SSE2, NEON).
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// The same and AVX512-BF16: bf16 products in pairs.
    Avx512Bf16,
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
        Self::Portable
    }

    /// Whether this processor can run the tier.
    pub fn is_available(self) -> bool {
        self <= Self::widest()
    }

    /// Every tier that this processor can run, narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16]
            .into_iter()
            .filter(|t| t.is_available())
    }
}

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
        })
    }
}

/// One of the names that [`Tier`] displays as.
impl std::str::FromStr for Tier {
    type Err = crate::Error;
    fn from_str(name: &str) -> crate::Result<Self> {
        let tiers = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];
        let known = tiers.iter().find(|t| t.to_string() == name);
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
                    tiers.map(|t| t.to_string()).join(", ")
                ),
            }),
        }
    }
}
