//! A forward pass in pieces is the whole one, bit for bit, however it is cut; text that the masks hide has no effect.

use std::collections::BTreeSet;
use std::ops::Range;

use proptest::prelude::*;
use xdit_kernels::attention::{Attention, Flash};
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::Blocks;

use super::{HunyuanConfig, HunyuanInput, HunyuanPositions, HunyuanText, HunyuanTransformer};
use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::weights::Scope;
use crate::files::weights::numbered::{NumberedWeights, tensor};
use crate::layers::Packing;
use crate::models::dit::{Conditioning, Dit};
use crate::models::skips::Skips;

const TIMESTEPS: [f32; 2] = [731.0, 40.0];
const SIZES: [f32; 6] = [600.0, 800.0, 512.0, 384.0, 32.0, 16.0];
const LENGTHS: [usize; 2] = [3, 5];
const IMAGE: usize = 6;

fn config(layers: usize, style_and_size: bool) -> HunyuanConfig {
    let json = format!(
        r#"{{"attention_head_dim": 4, "num_attention_heads": 3, "hidden_size": 12, "num_layers": {layers}, "mlp_ratio": 2.1,
        "in_channels": 3, "patch_size": 2, "cross_attention_dim": 10, "cross_attention_dim_t5": 16,
        "pooled_projection_dim": 7, "text_len": 3, "text_len_t5": 5,
        "use_style_cond_and_image_meta_size": {style_and_size}}}"#
    );
    HunyuanConfig::read(&ConfigFile::parse("c", json.as_bytes()).unwrap()).unwrap()
}

/// Some blocks, and what was asked for them.
fn load(config: &HunyuanConfig, blocks: &Blocks) -> (HunyuanTransformer, Vec<String>) {
    let weights = NumberedWeights::default();
    let packing = &mut Packing::new(DType::F32, Device::cpu());
    let model =
        HunyuanTransformer::load_blocks(config, blocks, &Scope::root(&weights), packing).unwrap();
    (model, weights.asked())
}

fn all(config: &HunyuanConfig) -> HunyuanTransformer {
    load(config, &Blocks::from(0..config.block_count())).0
}

/// Two pictures' prompts: BERT's and mT5's embeddings.
fn embeds() -> [Tensor; 2] {
    let [bert, t5] = LENGTHS;
    [tensor("bert", &[2, bert, 10]), tensor("t5", &[2, t5, 16])]
}

const MASKS: [&[bool]; 2] = [
    &[true, true, false, true, false, false],
    &[
        true, true, true, true, false, true, true, false, false, false,
    ],
];

fn text(model: &HunyuanTransformer) -> HunyuanText {
    let [bert, t5] = embeds();
    model
        .embed_text([&bert, &t5], MASKS, &SIZES, &mut ())
        .unwrap()
}

fn forward(model: &HunyuanTransformer, text: &HunyuanText) -> Result<Tensor> {
    let input = HunyuanInput {
        latents: &tensor("latents", &[2, IMAGE, 12]),
        text,
        timestep: &TIMESTEPS,
        positions: &HunyuanPositions::new(model.config(), 3, 2, &Device::cpu()).unwrap(),
    };
    model.forward(&input, &mut model.attention(), &mut ())
}

fn flash(count: usize) -> Vec<Box<dyn Attention>> {
    (0..count).map(|_| Box::new(Flash) as _).collect()
}

/// Runs legs one after another, each on the stage that holds its blocks; outputs for later blocks go from stage to stage.
fn in_pieces(stages: &[(HunyuanTransformer, Blocks)], legs: &[Range<usize>]) -> Result<Tensor> {
    let stage_of = |block: usize| {
        let stage = stages.iter().find(|(_, blocks)| blocks.contains(block));
        stage.expect("a stage that holds the block")
    };
    let (first, _) = stage_of(0);
    let positions = HunyuanPositions::new(first.config(), 3, 2, &Device::cpu())?;
    let mut stream = first.embed(
        &tensor("latents", &[2, IMAGE, 12]),
        &text(first),
        &positions,
        &mut (),
    )?;
    let mut skips = Skips::default();
    let mut predicted = None;
    for leg in legs {
        let (model, blocks) = stage_of(leg.start);
        let context = model.context(blocks, &text(model), &mut ())?;
        let modulation = model.modulate(leg.clone(), &TIMESTEPS, &context, &mut ())?;
        stream = model.run_blocks(
            leg.clone(),
            stream,
            Conditioning {
                modulation: &modulation,
                places: &positions,
            },
            &mut flash(leg.len()),
            &mut skips,
            &mut (),
        )?;
        if leg.end == model.config().block_count() {
            predicted = Some(model.project(
                &stream,
                Conditioning {
                    modulation: &modulation,
                    places: &positions,
                },
                &mut (),
            )?);
        }
    }
    assert!(skips.is_empty());
    Ok(predicted.expect("the last leg"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_cut_gives_the_whole(half in 1usize..5, first in 0usize..5, second in 0usize..5, style in any::<bool>()) {
        let config = config(2 * half, style);
        let count = config.block_count();
        let (model, asked) = load(&config, &Blocks::from(0..count));
        let whole = forward(&model, &text(&model)).unwrap();
        // Linear, at any block.
        let cut = 1 + (first + second) % (count - 1);
        let linear = [Blocks::from(0..cut), Blocks::from(cut..count)];
        // Folded, the outer stage with both ends.
        let outer = 1 + first % half;
        let folded = [Blocks::new([0..outer, count - outer..count]), Blocks::from(outer..count - outer)];
        let mut legs = vec![0..outer, outer..count - outer, count - outer..count];
        legs.retain(|leg| !leg.is_empty());
        for (stages, legs) in [(linear, vec![0..cut, cut..count]), (folded, legs)] {
            let stages = stages.into_iter().filter(|blocks| !blocks.is_empty());
            let loaded: Vec<_> = stages.map(|blocks| (load(&config, &blocks), blocks)).collect();
            let names = loaded.iter().flat_map(|((_, names), _)| names).collect::<BTreeSet<_>>();
            prop_assert_eq!(names, asked.iter().collect::<BTreeSet<_>>());
            let held = loaded.iter().map(|((model, _), _)| model.block_count()).sum::<usize>();
            prop_assert_eq!(held, count);
            let stages: Vec<_> = loaded.into_iter().map(|((model, _), blocks)| (model, blocks)).collect();
            let got = in_pieces(&stages, &legs).unwrap();
            prop_assert_eq!(got.to_vec_blocking::<f32>().unwrap(), whole.to_vec_blocking::<f32>().unwrap());
        }
    }
}

#[test]
fn what_masks_hide_of_bert_has_no_effect() {
    let model = all(&config(4, false));
    let [bert, t5] = embeds();
    let whole = forward(&model, &text(&model))
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    let changed = |row: usize| {
        let mut values = bert.to_vec_blocking::<f32>().unwrap();
        values[10 * row..10 * (row + 1)].fill(7.0);
        let bert = Tensor::from_slice(&values, bert.shape(), &Device::cpu()).unwrap();
        let text = model.embed_text([&bert, &t5], MASKS, &SIZES, &mut ());
        forward(&model, &text.unwrap())
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap()
    };
    // Rows of both pictures, of which the masks keep 0, 1 and 3.
    for row in [2, 4, 5] {
        assert_eq!(changed(row), whole, "row {row}");
    }
    for row in [0, 1, 3] {
        assert_ne!(changed(row), whole, "row {row}");
    }
}

#[test]
fn sizes_are_read_where_they_are_embedded() {
    for style in [false, true] {
        let model = all(&config(2, style));
        let [bert, t5] = embeds();
        let other = model.embed_text([&bert, &t5], MASKS, &[9.0; 6], &mut ());
        let other = forward(&model, &other.unwrap())
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap();
        let same = other
            == forward(&model, &text(&model))
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap();
        assert_eq!(same, !style);
    }
}

#[test]
fn bytes_are_those_that_the_configuration_tells() {
    use crate::models::dit::DitShape;
    for style in [false, true] {
        let config = config(6, style);
        for blocks in [
            Blocks::from(0..6),
            Blocks::new([0..2, 4..6]),
            Blocks::from(2..4),
        ] {
            let (model, _) = load(&config, &blocks);
            let told = config.stage_bytes(&blocks, DType::F32) as usize;
            // Packed layers are padded to whole panels: at widths of 12 by more than half.
            let held = model.byte_len(&blocks);
            assert!(held >= told, "{held} < {told}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let model = all(&config(4, true));
    let [bert, t5] = embeds();
    let short: [&[bool]; 2] = [&MASKS[0][1..], MASKS[1]];
    let text_of = |embeds, masks| model.embed_text(embeds, masks, &SIZES, &mut ());
    assert!(text_of([&bert, &t5], short).is_err());
    assert!(text_of([&t5, &bert], MASKS).is_err());
    let one = t5.narrow(0, 0, 1).unwrap();
    assert!(text_of([&bert, &one], MASKS).is_err());

    let (half, _) = load(model.config(), &Blocks::from(0..2));
    let error = forward(&half, &text(&half)).unwrap_err().to_string();
    assert!(error.contains("all blocks"), "{error}");
    let weights = NumberedWeights::default();
    let packing = &mut Packing::new(DType::F32, Device::cpu());
    let beyond = Blocks::from(2..5);
    let scope = Scope::root(&weights);
    assert!(HunyuanTransformer::load_blocks(model.config(), &beyond, &scope, packing).is_err());

    // A block whose input of an earlier one is not there.
    let context = model
        .context(&Blocks::from(0..4), &text(&model), &mut ())
        .unwrap();
    let modulation = model.modulate(3..4, &TIMESTEPS, &context, &mut ()).unwrap();
    let positions = HunyuanPositions::new(model.config(), 3, 2, &Device::cpu()).unwrap();
    let stream = tensor("stream", &[2, IMAGE, 12]);
    let run = |skips: &mut Skips| {
        let conditioning = Conditioning {
            modulation: &modulation,
            places: &positions,
        };
        model.run_blocks(
            3..4,
            stream.clone(),
            conditioning,
            &mut flash(1),
            skips,
            &mut (),
        )
    };
    let error = run(&mut Skips::default()).unwrap_err().to_string();
    assert!(error.contains("block 0"), "{error}");
    let mut skips = Skips::default();
    skips.put(0, stream.clone());
    assert!(run(&mut skips).is_ok());
}
