//! The flags that say how to compute.

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use serde::Serialize;
use xdit_kernels::{DType, Tier};

use crate::args::device::DeviceChoice;
use crate::args::suggested::Suggested;

/// Where and how to compute.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Compute")]
pub(crate) struct RunArgs {
    /// Dtype of weights and activations.
    ///
    /// Sums are always f32. diffusers' default is f32 too.
    #[arg(
        long,
        value_enum,
        default_value_t = Precision::F32,
        value_name = "f32|bf16|f16",
        hide_possible_values = true
    )]
    #[serde(skip)]
    pub dtype: Precision,
    /// Where to compute: auto is the first NVIDIA GPU that can be used, or the CPU.
    ///
    /// cuda:0,1 spreads the ranks over two GPUs: ranks whose numbers are near share a GPU, and the first GPU also encodes prompts.
    /// See devices. No real GPU has run this version yet.
    #[arg(long, default_value = "auto", value_name = "auto|cpu|cuda[:N,…]", hide_possible_values = true,
          value_parser = Suggested(&["auto", "cpu", "cuda"]).try_map(|text| text.parse::<DeviceChoice>()))]
    #[serde(skip)]
    pub device: DeviceChoice,
    /// Let a GPU round the operands of f32 products to TF32: faster, less exact.
    #[arg(long)]
    #[serde(skip)]
    pub allow_tf32: bool,
    /// Decode in overlapping tiles, like diffusers' enable_tiling: needs less memory for large images and is approximate
    /// (seams are blended). Has no effect if several ranks decode together, which is exact.
    #[arg(long)]
    pub vae_tiling: bool,
    /// Less memory: drop text encoders early.
    ///
    /// They are dropped before the transformer is read, which is slower with --prompt-file.
    #[arg(long)]
    #[serde(skip)]
    pub low_memory: bool,
    /// Threads and instructions.
    #[command(flatten)]
    #[serde(skip)]
    pub threads: ThreadArgs,
}

/// Threads and instructions.
#[derive(Debug, Args)]
#[command(next_help_heading = "Compute")]
pub(crate) struct ThreadArgs {
    /// Compute threads.
    ///
    /// Their number changes the speed, never the image [default: RAYON_NUM_THREADS, OMP_NUM_THREADS or all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Instruction tier: portable, avx2, avx512, avx512-bf16, neon or neon-bf16 [default: the fastest that this processor has].
    #[arg(long, value_name = "TIER", value_parser = tier)]
    pub cpu_tier: Option<Tier>,
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Precision {
    /// IEEE single.
    #[value(alias = "float32", alias = "fp32")]
    F32,
    /// bfloat16 with f32 accumulation.
    #[value(alias = "bfloat16")]
    Bf16,
    /// IEEE half with f32 accumulation.
    #[value(alias = "float16", alias = "fp16")]
    F16,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
}

fn tier(text: &str) -> Result<Tier, String> {
    let tier = text.parse();
    tier.map_err(|_| {
        let tiers: Vec<String> = Tier::available().map(|it| it.to_string()).collect();
        format!("expected a tier of this processor: {}", tiers.join(", "))
    })
}
