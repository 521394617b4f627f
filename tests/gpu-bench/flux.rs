//! One step of FLUX.1-dev's transformer with random weights.

use crate::{
    Failure,
    case::BenchCase,
    measure::{row, sample, summary},
};
use serde_json::{Value, json};
use xdit_kernels::{DType, Device};
use xdit_models::{
    ConfigFile,
    flux::{FluxConfig, FluxInput, FluxTransformer, RotaryTables},
    layers::Packing,
    weights::Scope,
};
use xdit_tests::random::{RandomWeights, random};

const DTYPE: DType = DType::BF16;

/// Measures a step, and the memory of weights and of a step at its peak.
pub(crate) fn run(
    case: &BenchCase,
    device: &Device,
    round: u64,
    smoke: bool,
) -> Result<Value, Failure> {
    let (warm_up, repeats) = if smoke { (1, 2) } else { (2, 7) };
    let config = ConfigFile::parse("config.json", case.config().as_bytes())?;
    let config = FluxConfig::read(&config)?;
    let hidden = config.hidden_size();
    // The host has one tensor's numbers, which all tensors repeat; the largest is the modulation of a double block.
    let largest = 6 * hidden * hidden.max(config.joint_attention_dim);
    let weights = RandomWeights::new(largest, DTYPE, &Device::cpu())?;
    let mut packing = Packing::new(DTYPE, device.clone());
    let model = FluxTransformer::load(&config, &Scope::root(&weights), &mut packing)?;
    device.synchronize()?;
    let in_use = || device.cuda_memory().map(|memory| memory.in_use);
    let weights_bytes = in_use();
    let (text_len, side) = (case.size("text")?, case.size("side")?);
    let of = |shape: &[usize], dtype| random(shape, dtype, device);
    let prompt = of(&[1, text_len, config.joint_attention_dim], DTYPE)?;
    let pooled = of(&[1, config.pooled_projection_dim], DTYPE)?;
    let text = model.embed_text(&prompt, &pooled)?;
    let latents = of(&[1, side * side, config.in_channels], DType::F32)?;
    let rotary = RotaryTables::new(&config.axes_dims_rope, text_len, side, side, device)?;
    let input = FluxInput {
        latents: &latents,
        text: &text,
        timestep: &[0.7],
        guidance: Some(&[3.5]),
        rotary: &rotary,
    };
    let mut step = || {
        model.forward(&input, &mut model.attention(), &mut ())?;
        Ok(())
    };
    device.reset_cuda_peak();
    let mut samples = Vec::new();
    for turn in 0..warm_up + repeats {
        let time = sample(device, &mut step)?;
        if turn >= warm_up {
            samples.push(time);
        }
    }
    let mut line = row(case, round, &summary(&samples));
    line["weights_bytes"] = json!(weights_bytes);
    line["peak_bytes"] = json!(device.cuda_memory().map(|memory| memory.peak));
    Ok(line)
}
