//! A forward pass in pieces is the whole one, bit for bit, however it is cut.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use proptest::prelude::*;
use xdit_kernels::attention::{Attention, AttnInput, AttnOut, Flash, Segment};
use xdit_kernels::{DType, Device, Tensor};

use super::{Sd3Config, Sd3Input, Sd3Positions, Sd3Text, Sd3Transformer};
use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::weights::Scope;
use crate::files::weights::numbered::{NumberedWeights, tensor};
use crate::layers::Packing;
use crate::models::dit::{Conditioning, Dit};
use crate::models::skips::Skips;

/// Some blocks, and what was asked for them.
fn load(config: &Sd3Config, blocks: Range<usize>) -> (Sd3Transformer, Vec<String>) {
    let weights = NumberedWeights::default();
    let packing = &mut Packing::new(DType::F32, Device::cpu());
    let model =
        Sd3Transformer::load_blocks(config, blocks, &Scope::root(&weights), packing).unwrap();
    (model, weights.asked())
}

fn config(layers: usize, dual: &[usize], qk_norm: bool) -> Sd3Config {
    let norm = if qk_norm { r#""rms_norm""# } else { "null" };
    let json = format!(
        r#"{{"attention_head_dim": 6, "num_attention_heads": 3, "caption_projection_dim": 18, "num_layers": {layers},
        "in_channels": 3, "out_channels": 5, "joint_attention_dim": 10, "pooled_projection_dim": 7,
        "pos_embed_max_size": 5, "dual_attention_layers": {dual:?}, "qk_norm": {norm}}}"#
    );
    Sd3Config::read(&ConfigFile::parse("c", json.as_bytes()).unwrap()).unwrap()
}

/// Two pictures of 3 × 2 tokens and their prompts of four.
struct Inputs {
    latents: Tensor,
    prompt_embeds: Tensor,
    pooled: Tensor,
    positions: Sd3Positions,
}

const TEXT: usize = 4;
const IMAGE: usize = 6;
const TIMESTEPS: [f32; 2] = [731.25, 40.5];

impl Inputs {
    fn new(config: &Sd3Config) -> Self {
        Self {
            latents: tensor("latents", &[2, IMAGE, 12]),
            prompt_embeds: tensor("prompt_embeds", &[2, TEXT, 10]),
            pooled: tensor("pooled", &[2, 7]),
            positions: Sd3Positions::new(config, TEXT, 3, 2).unwrap(),
        }
    }

    fn text(&self, model: &Sd3Transformer) -> Sd3Text {
        model.embed_text(&self.prompt_embeds, &self.pooled).unwrap()
    }

    fn forward(&self, model: &Sd3Transformer, skip_layers: &[usize]) -> Result<Tensor> {
        let input = Sd3Input {
            latents: &self.latents,
            text: &self.text(model),
            timestep: &TIMESTEPS,
            positions: &self.positions,
            skip_layers,
        };
        model.forward(&input, &mut model.attention(), &mut ())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_cut_gives_the_whole(
        layers in 1usize..5,
        dual in proptest::collection::vec(0usize..5, 0..4),
        skip in proptest::collection::vec(0usize..6, 0..3),
        qk_norm: bool,
    ) {
        let config = config(layers, &dual, qk_norm);
        let inputs = Inputs::new(&config);
        let (whole, all) = load(&config, 0..layers);
        let want = inputs.forward(&whole, &skip).unwrap();
        prop_assert_eq!(want.shape(), [2, IMAGE, 20]);
        for cut in 1..layers {
            let mut stream = None;
            let mut prediction = None;
            let mut asked = Vec::new();
            let mut bytes = 0;
            for blocks in [0..cut, cut..layers] {
                let (stage, names) = load(&config, blocks.clone());
                asked.extend(names);
                bytes += stage.byte_len(&blocks.clone().into());
                prop_assert_eq!(stage.byte_len(&blocks.clone().into()), whole.byte_len(&blocks.clone().into()));
                let text = inputs.text(&stage);
                let modulation = stage
                    .modulate(blocks.clone(), &TIMESTEPS, &text.pooled, &skip, &mut ())
                    .unwrap();
                let hidden = stream.take().unwrap_or_else(|| {
                    stage.embed(&inputs.latents, &text, &inputs.positions, &mut ()).unwrap()
                });
                let hidden = stage
                    .run_blocks(
                        blocks.clone(),
                        hidden,
                        Conditioning { modulation: &modulation, places: &inputs.positions },
                        &mut stage.attention(),
                        &mut Skips::default(),
                        &mut (),
                    )
                    .unwrap();
                prop_assert_eq!(hidden.shape(), [2, TEXT + IMAGE, 18]);
                let projected = stage.project(&hidden, Conditioning { modulation: &modulation, places: &inputs.positions }, &mut ());
                prop_assert_eq!(projected.is_ok(), blocks.end == layers);
                prediction = projected.ok();
                stream = Some(hidden);
            }
            prop_assert_eq!(prediction.unwrap().to_vec_blocking::<f32>().unwrap(), want.to_vec_blocking::<f32>().unwrap());
            // Both stages read the embedding of timestep and pooled text, and nothing else is read twice.
            let shared = all.iter().filter(|name| name.starts_with("time_text_embed."));
            prop_assert_eq!(bytes, whole.byte_len(&(0..layers).into()) + whole.time_text_embed.byte_len());
            let mut twice: Vec<_> = all.iter().chain(shared).cloned().collect();
            twice.sort_unstable();
            asked.sort_unstable();
            prop_assert_eq!(asked, twice);
        }
    }
}

/// Keeps the text's keys and values of the whole pass for those without text.
struct KeepText {
    /// Whether it is a joint attention: an image's own must not see text.
    joint: bool,
    kept: Option<[Tensor; 2]>,
    seen: Rc<RefCell<Vec<Vec<Segment>>>>,
}

impl Attention for KeepText {
    fn attend(&mut self, input: &AttnInput<'_>) -> xdit_kernels::Result<AttnOut> {
        self.seen.borrow_mut().push(input.segments.to_vec());
        let rows: usize = input.segments.iter().map(|part| part.len).sum();
        assert_eq!(rows, input.q.dim(1), "segments are the rows that there are");
        let text = input.segments.first().filter(|part| part.stream == 0);
        if !self.joint {
            assert!(
                text.is_none(),
                "an image's own attention has image rows only"
            );
            return Flash.attend(input);
        }
        if let Some(text) = text {
            let keep = |x: xdit_kernels::View<'_>| x.narrow(1, 0, text.len)?.to_tensor();
            self.kept = Some([keep(input.k)?, keep(input.v)?]);
            return Flash.attend(input);
        }
        let [k, v] = self.kept.as_ref().expect("a whole pass before");
        let k = Tensor::cat(&[k.view(), input.k], 1)?;
        let v = Tensor::cat(&[v.view(), input.v], 1)?;
        Flash.attend(&AttnInput::new(input.q, &k, &v))
    }
}

#[test]
fn text_may_be_absent_where_attention_has_kept_it() {
    let config = config(3, &[0, 2], true);
    let inputs = Inputs::new(&config);
    let (model, _) = load(&config, 0..3);
    let want = inputs.forward(&model, &[]).unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let joint = [true, false, true, true, false];
    let mut attention: Vec<Box<dyn Attention>> = joint
        .into_iter()
        .map(|joint| {
            Box::new(KeepText {
                joint,
                kept: None,
                seen: seen.clone(),
            }) as Box<dyn Attention>
        })
        .collect();
    assert_eq!(attention.len(), model.attention().len());
    let text = inputs.text(&model);
    let modulation = model
        .modulate(0..3, &TIMESTEPS, &text.pooled, &[], &mut ())
        .unwrap();
    let image = Segment {
        stream: 1,
        start: 0,
        len: IMAGE,
        total: IMAGE,
    };
    let without = inputs.positions.part(None, &[(0, image)]).unwrap();
    let no_text = Sd3Text {
        context: None,
        ..text.clone()
    };
    for (text, positions) in [(&text, &inputs.positions), (&no_text, &without)] {
        let hidden = model
            .embed(&inputs.latents, text, positions, &mut ())
            .unwrap();
        let hidden = model
            .run_blocks(
                0..3,
                hidden,
                Conditioning {
                    modulation: &modulation,
                    places: positions,
                },
                &mut attention,
                &mut Skips::default(),
                &mut (),
            )
            .unwrap();
        assert_eq!(hidden.dim(1), positions.token_count());
        let got = model
            .project(
                &hidden,
                Conditioning {
                    modulation: &modulation,
                    places: positions,
                },
                &mut (),
            )
            .unwrap();
        assert_eq!(
            got.to_vec_blocking::<f32>().unwrap(),
            want.to_vec_blocking::<f32>().unwrap()
        );
    }
    let seen = seen.borrow();
    let text = Segment {
        stream: 0,
        start: 0,
        len: TEXT,
        total: TEXT,
    };
    let both = vec![text, image];
    let own = vec![image];
    let whole = [&both, &own, &both, &both, &own];
    let patch = [&own; 5];
    assert!(seen.iter().eq(whole.into_iter().chain(patch)), "{seen:?}");
}

#[test]
fn skipped_blocks_change_nothing() {
    let config = config(3, &[1], false);
    let inputs = Inputs::new(&config);
    let (model, _) = load(&config, 0..3);
    let run = |skip: &[usize]| {
        inputs
            .forward(&model, skip)
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap()
    };
    // Blocks that there are not, and naming one twice, have no effect.
    assert_eq!(run(&[7]), run(&[]));
    assert_eq!(run(&[1, 1]), run(&[1]));
    assert!(run(&[1]) != run(&[]) && run(&[2]) != run(&[1]));

    // Without any block, the prediction is the projection of the embedded latents.
    let text = inputs.text(&model);
    let modulation = model
        .modulate(0..3, &TIMESTEPS, &text.pooled, &[], &mut ())
        .unwrap();
    let hidden = model
        .embed(&inputs.latents, &text, &inputs.positions, &mut ())
        .unwrap();
    let projected = model
        .project(
            &hidden,
            Conditioning {
                modulation: &modulation,
                places: &inputs.positions,
            },
            &mut (),
        )
        .unwrap();
    assert_eq!(run(&[0, 1, 2]), projected.to_vec_blocking::<f32>().unwrap());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let config = config(3, &[1], false);
    let inputs = Inputs::new(&config);
    let (model, _) = load(&config, 0..3);
    let (part, _) = load(&config, 1..3);
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(message(inputs.forward(&part, &[])).contains("text of 2 prompts"));
    let text = inputs.text(&model);
    let too_many = part.modulate(0..3, &TIMESTEPS, &text.pooled, &[], &mut ());
    let error = too_many.unwrap_err().to_string();
    assert!(error.contains("blocks of 1..3"), "{error}");
    let wrong = part.embed(&inputs.latents, &text, &inputs.positions, &mut ());
    assert!(message(wrong).contains("holds this end"));

    let input = Sd3Input {
        latents: &inputs.latents,
        text: &text,
        timestep: &TIMESTEPS,
        positions: &inputs.positions,
        skip_layers: &[],
    };
    // A dual block attends twice.
    let few = &mut model.attention()[..3];
    assert!(message(model.forward(&input, few, &mut ())).contains("4 attentions"));
    let other = tensor("other", &[2, IMAGE - 1, 12]);
    let latents = Sd3Input {
        latents: &other,
        ..input
    };
    let error = message(model.forward(&latents, &mut model.attention(), &mut ()));
    assert!(error.contains("latents [b, 6, 12]"), "{error}");
    let timestep = Sd3Input {
        timestep: &TIMESTEPS[..1],
        ..input
    };
    let error = message(model.forward(&timestep, &mut model.attention(), &mut ()));
    assert!(error.contains("2 timesteps"), "{error}");
}
