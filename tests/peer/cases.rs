use super::{Case, Failure, pipelines, ranks};
use serde_json::Value;
use std::hint::black_box;
use xdit_kernels::{
    DType, Device,
    activation::{Activation, activation},
    attention::{Attention, AttnInput, Flash},
    conv2d::{Algorithm, Conv2d, Conv2dOptions, Padding},
    elementwise::gate_residual,
    group_norm::group_norm,
    linear::Linear,
    norm::layer_norm_modulate,
    rope::rms_norm_rope,
};
use xdit_models::Degrees;
use xdit_models::{
    Blocks, ConfigFile, LoadOptions, ModelSource, Pipeline, Request,
    flux::{FluxConfig, FluxInput, FluxTransformer, RotaryTables},
    hunyuandit::{HunyuanConfig, HunyuanPositions, HunyuanTransformer},
    layers::Packing,
    sd3::{Sd3Config, Sd3Input, Sd3Positions, Sd3Transformer},
    weights::Scope,
};
use xdit_tests::random::{RandomWeights, random};

/// The dtype that a request names.
pub(super) fn dtype(request: &Value) -> Result<DType, Failure> {
    match request["dtype"].as_str() {
        Some("f32") => Ok(DType::F32),
        Some("bf16") => Ok(DType::BF16),
        other => Err(format!("dtype {other:?}").into()),
    }
}

/// The processor, with the instructions of the tier that a request names, if it does.
pub(super) fn device(request: &Value) -> Result<Device, Failure> {
    Ok(match request["tier"].as_str() {
        Some(tier) => Device::cpu_with(tier.parse()?)?,
        None => Device::cpu(),
    })
}

/// The operation that a request names.
pub(super) fn make(request: &Value) -> Result<Case, Failure> {
    let size = |key: &str| {
        request[key]
            .as_u64()
            .map(|n| n as usize)
            .ok_or(format!("{key} is missing"))
    };
    let dtype = dtype(request)?;
    let device = &device(request)?;
    Ok(match request["op"].as_str() {
        Some("linear") => {
            let (m, k, n) = (size("m")?, size("k")?, size("n")?);
            let x = random(&[m, k], dtype, device)?;
            let (weight, bias) = (
                random(&[n, k], dtype, device)?,
                random(&[n], dtype, device)?,
            );
            let linear = Linear::pack(weight.view(), Some(bias.view()), dtype, device)?;
            Box::new(move || {
                black_box(linear.forward(&x)?);
                Ok(())
            })
        }
        Some("attention") => {
            let shape = [1, size("tokens")?, size("heads")?, size("d")?];
            let x = random(&shape, dtype, device)?;
            Box::new(move || {
                black_box(Flash.attend(&AttnInput::new(x.view(), x.view(), x.view()))?);
                Ok(())
            })
        }
        Some("layer_norm_modulate") => {
            let (rows, c) = (size("rows")?, size("c")?);
            let x = random(&[1, rows, c], dtype, device)?;
            let row = random(&[1, c], dtype, device)?;
            Box::new(move || {
                black_box(layer_norm_modulate(&x, &row, &row, 1e-6)?);
                Ok(())
            })
        }
        Some("rms_norm_rope") => {
            let (rows, heads, d) = (size("rows")?, size("heads")?, size("d")?);
            let x = random(&[1, rows, heads, d], dtype, device)?;
            let weight = random(&[d], dtype, device)?;
            let table = random(&[rows, d], DType::F32, device)?;
            Box::new(move || {
                black_box(rms_norm_rope(
                    &x,
                    Some(weight.view()),
                    1e-6,
                    Some((table.view(), table.view())),
                )?);
                Ok(())
            })
        }
        Some("gelu") => {
            let x = random(&[1, size("rows")?, size("c")?], dtype, device)?;
            Box::new(move || {
                black_box(activation(&x, Activation::GeluTanh)?);
                Ok(())
            })
        }
        Some("gate_residual") => {
            let (rows, c) = (size("rows")?, size("c")?);
            let (x, y) = (
                random(&[1, rows, c], dtype, device)?,
                random(&[1, rows, c], dtype, device)?,
            );
            let gate = random(&[1, c], dtype, device)?;
            Box::new(move || {
                black_box(gate_residual(&x, &gate, &y)?);
                Ok(())
            })
        }
        Some("conv2d") => {
            let (s, c) = (size("size")?, size("channels")?);
            let x = random(&[1, s, s, c], dtype, device)?;
            let kernel = request["kernel"].as_u64().map_or(3, |n| n as usize);
            let (weight, bias) = (
                random(&[c, c, kernel, kernel], dtype, device)?,
                random(&[c], dtype, device)?,
            );
            let options = Conv2dOptions {
                padding: Padding::all(kernel / 2),
                stride: request["stride"].as_u64().map_or(1, |n| n as usize),
                algorithm: Algorithm::Auto,
                ..Default::default()
            };
            let conv = Conv2d::pack(weight.view(), Some(bias.view()), options, dtype, device)?;
            Box::new(move || {
                black_box(conv.forward(&x)?);
                Ok(())
            })
        }
        Some("group_norm_silu") => {
            let (s, c) = (size("size")?, size("channels")?);
            let x = random(&[1, s, s, c], dtype, device)?;
            let row = random(&[c], dtype, device)?;
            Box::new(move || {
                black_box(group_norm(&x, 32, &row, &row, 1e-6, true)?);
                Ok(())
            })
        }
        Some("flux_blocks") => flux_blocks(
            size("image_tokens")?,
            size("text_tokens")?,
            dtype,
            device,
            degrees(request),
        )?,
        Some("sd3_blocks") => {
            sd3_blocks(size("image_tokens")?, size("text_tokens")?, dtype, device)?
        }
        Some("hunyuan_blocks") => hunyuan_blocks(size("image_tokens")?, dtype, device)?,
        Some("pipeline") => pipelines::make(request)?,
        Some("demo") if request["side"].is_u64() => ranks::demo(
            size("side")?,
            dtype,
            device,
            degrees(request).unwrap_or_default(),
        )?,
        Some("demo") => {
            let options = LoadOptions {
                dtype,
                device: device.clone(),
                threads: Some(rayon::current_num_threads()),
                ..Default::default()
            };
            let pipe = Pipeline::load(&ModelSource::demo(), &options, &mut ())?;
            let request = Request::new(["a red circle on a blue background"]);
            Box::new(move || {
                black_box(pipe.generate(&request, &mut ())?);
                Ok(())
            })
        }
        other => return Err(format!("no operation {other:?}").into()),
    })
}

/// The ranks that a request names, if it does.
fn degrees(request: &Value) -> Option<Degrees> {
    let degree = |key: &str| request[key].as_u64().map_or(1, |n| n as usize);
    let named = request["ulysses"].is_u64() || request["ring"].is_u64();
    named.then(|| Degrees {
        ulysses: degree("ulysses"),
        ring: degree("ring"),
        ..Degrees::default()
    })
}

/// One double and one single block of FLUX.1-dev's size, with their embedders and final layer.
fn flux_blocks(
    image_tokens: usize,
    text_tokens: usize,
    dtype: DType,
    device: &Device,
    degrees: Option<Degrees>,
) -> Result<Case, Failure> {
    let config = br#"{"num_layers": 1, "num_single_layers": 1, "guidance_embeds": true}"#;
    let config = FluxConfig::read(&ConfigFile::parse("config.json", config)?)?;
    let hidden = config.hidden_size();
    // The largest tensor is the modulation of a double block, 6·c × c.
    let weights = RandomWeights::new(6 * hidden * hidden, dtype, device)?;
    let mut packing = Packing::new(dtype, device.clone());
    let model = FluxTransformer::load(&config, &Scope::root(&weights), &mut packing)?;
    let prompt = random(&[1, text_tokens, config.joint_attention_dim], dtype, device)?;
    let pooled = random(&[1, config.pooled_projection_dim], dtype, device)?;
    let side = image_tokens.isqrt();
    let rotary = RotaryTables::new(&config.axes_dims_rope, text_tokens, side, side, device)?;
    let latents = random(&[1, side * side, config.in_channels], DType::F32, device)?;
    if let Some(degrees) = degrees {
        return Ok(ranks::forward(
            model,
            latents,
            [prompt, pooled],
            rotary,
            degrees,
        ));
    }
    let text = model.embed_text(&prompt, &pooled)?;
    Ok(Box::new(move || {
        let (timestep, guidance) = ([0.7], [3500.0]);
        let input = FluxInput {
            latents: &latents,
            text: &text,
            timestep: &timestep,
            guidance: Some(&guidance),
            rotary: &rotary,
        };
        {
            black_box(model.forward(&input, &mut model.attention(), &mut ())?);
            Ok(())
        }
    }))
}

/// Two blocks of SD3-medium's size, of which the last only reads the text, with their embedders and final layer.
fn sd3_blocks(
    image_tokens: usize,
    text_tokens: usize,
    dtype: DType,
    device: &Device,
) -> Result<Case, Failure> {
    let config = br#"{"num_layers": 2, "num_attention_heads": 24, "caption_projection_dim": 1536}"#;
    let config = Sd3Config::read(&ConfigFile::parse("config.json", config)?)?;
    let hidden = config.hidden_size();
    // The largest tensor is the position table.
    let largest = config.pos_embed_max_size * config.pos_embed_max_size * hidden;
    let weights = RandomWeights::new(largest, dtype, device)?;
    let mut packing = Packing::new(dtype, device.clone());
    let model = Sd3Transformer::load(&config, &Scope::root(&weights), &mut packing)?;
    let prompt = random(&[1, text_tokens, config.joint_attention_dim], dtype, device)?;
    let pooled = random(&[1, config.pooled_projection_dim], dtype, device)?;
    let text = model.embed_text(&prompt, &pooled)?;
    let side = image_tokens.isqrt();
    let positions = Sd3Positions::new(&config, text_tokens, side, side)?;
    let latents = random(
        &[1, side * side, config.token_channels()[0]],
        DType::F32,
        device,
    )?;
    Ok(Box::new(move || {
        let input = Sd3Input {
            latents: &latents,
            text: &text,
            timestep: &[700.0],
            positions: &positions,
            skip_layers: &[],
        };
        black_box(model.forward(&input, &mut model.attention(), &mut ())?);
        Ok(())
    }))
}

/// Two blocks of HunyuanDiT's size, of which the second reads the first's output again: those at both ends of a model of four.
/// Keys and values of the text are made once, outside, as for an image; what the blocks make of the timestep is in each call.
fn hunyuan_blocks(image_tokens: usize, dtype: DType, device: &Device) -> Result<Case, Failure> {
    let config = br#"{"num_layers": 4, "hidden_size": 1408, "in_channels": 4, "patch_size": 2, "mlp_ratio": 4.3637,
        "use_style_cond_and_image_meta_size": false}"#;
    let config = HunyuanConfig::read(&ConfigFile::parse("config.json", config)?)?;
    // The largest tensor is the first matrix of what makes mT5's tokens as wide as BERT's.
    let largest = 4 * config.cross_attention_dim_t5 * config.cross_attention_dim_t5;
    let weights = RandomWeights::new(largest, dtype, device)?;
    let mut packing = Packing::new(dtype, device.clone());
    let held = Blocks::new([0..1, 3..4]);
    let model =
        HunyuanTransformer::load_blocks(&config, &held, &Scope::root(&weights), &mut packing)?;
    let bert = random(
        &[1, config.text_len, config.cross_attention_dim],
        dtype,
        device,
    )?;
    let t5 = random(
        &[1, config.text_len_t5, config.cross_attention_dim_t5],
        dtype,
        device,
    )?;
    let masks = [config.text_len, config.text_len_t5].map(|len| vec![true; len]);
    let [mask, mask_t5] = &masks;
    let text = model.embed_text([&bert, &t5], [mask, mask_t5], &[0.0; 6], &mut ())?;
    let context = model.read_text(&text)?;
    let side = image_tokens.isqrt();
    let positions = HunyuanPositions::new(&config, side, side, device)?;
    let stream = random(&[1, side * side, config.hidden_size()], dtype, device)?;
    Ok(Box::new(move || {
        let attention = &mut model.attention();
        black_box(model.run_held(&stream, &[700.0], &context, &positions, attention)?);
        Ok(())
    }))
}
