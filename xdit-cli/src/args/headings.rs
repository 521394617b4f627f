//! The headings of the flags that only some models take.

/// Flags of two families.
pub(crate) const FLUX_AND_SD3: &str = "Flux, Stable Diffusion 3 and 3.5";
/// Flags of Flux.
pub(crate) const FLUX: &str = "Flux";
/// Flags of Stable Diffusion 3 and 3.5.
pub(crate) const SD3: &str = "Stable Diffusion 3 and 3.5";
/// Flags of HunyuanDiT.
pub(crate) const HUNYUANDIT: &str = "HunyuanDiT";
