//! The parts of a Flux pipeline: loading them, and the embeddings of prompts.

use xdit_kernels::{DType, Tensor};

use super::configs::Configs;
use super::{FluxText, FluxTransformer};
use crate::error::{Error, Result};
use crate::layers::Packing;
use crate::memory;
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::pipeline::LoadOptions;
use crate::request::Branches;
use crate::schedulers::FlowMatchEulerConfig;
use crate::source::ModelSource;
use crate::text::{ClipTextModel, T5Encoder};
use crate::tokenizers::Tokenizer;
use crate::vae::VaeDecoder;
use crate::weights::{Scope, Weights};

/// CLIP's context, where its tokenizer does not say.
const CLIP_LENGTH: usize = 77;
/// The classes of tokenizers, for either text encoder.
const TOKENIZERS: &[&str] = &[
    "CLIPTokenizer",
    "CLIPTokenizerFast",
    "T5Tokenizer",
    "T5TokenizerFast",
    "TokenizersBackend",
    "PreTrainedTokenizerFast",
];

/// Everything that a Flux pipeline loads.
#[derive(Debug)]
pub(crate) struct Components {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) tokenizer_2: Tokenizer,
    pub(crate) text_encoder: ClipTextModel,
    pub(crate) text_encoder_2: T5Encoder,
    pub(crate) transformer: FluxTransformer,
    pub(crate) vae: VaeDecoder,
    pub(crate) scheduler: FlowMatchEulerConfig,
}

impl Components {
    pub(crate) fn load(
        source: &ModelSource,
        configs: &Configs,
        options: &LoadOptions,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let _span = tracing::info_span!("load").entered();
        let Configs {
            index,
            clip,
            t5,
            flux,
            vae,
            scheduler,
            ..
        } = configs;
        let tokenizer =
            |name: &str| Tokenizer::read(source, name, &index.expect(name, TOKENIZERS)?.class);
        let tokenizer_2 = tokenizer("tokenizer_2")?.with_vocab_size(t5.vocab_size);
        let tokenizer = tokenizer("tokenizer")?.with_vocab_size(clip.vocab_size);

        let names = ["transformer", "text_encoder", "text_encoder_2", "vae"];
        let open = |name: &str| source.open_weights(name, options.variant.as_deref());
        let weights = names.map(open);
        let [dit_weights, clip_weights, t5_weights, vae_weights] = weights;
        let [dit_weights, clip_weights, t5_weights, vae_weights] =
            [dit_weights?, clip_weights?, t5_weights?, vae_weights?];
        let all = [&dit_weights, &clip_weights, &t5_weights, &vae_weights];
        memory::check(
            "the weights",
            packed_bytes(&all, options.dtype),
            options.memory_limit,
        )?;

        let total = all.iter().map(|weights| weights.total_bytes()).sum();
        observer.phase(Phase::Load, PhaseEvent::Start { total });
        let mut done = 0;
        let mut on_packed = |bytes: u64| {
            done += bytes;
            observer.phase(
                Phase::Load,
                PhaseEvent::Advance {
                    done: done.min(total),
                    total,
                },
            );
        };
        let packing = &mut Packing::new(options.dtype, options.device).on_packed(&mut on_packed);
        let transformer = FluxTransformer::load(flux, &Scope::root(&dit_weights), packing)?;
        let text_encoder = ClipTextModel::load(clip, &Scope::root(&clip_weights), packing)?;
        let text_encoder_2 = T5Encoder::load(t5, &Scope::root(&t5_weights), packing)?;
        let vae = VaeDecoder::load(vae, &Scope::root(&vae_weights), packing)?;
        observer.phase(Phase::Load, PhaseEvent::End);
        Ok(Self {
            tokenizer,
            tokenizer_2,
            text_encoder,
            text_encoder_2,
            transformer,
            vae,
            scheduler: scheduler.clone(),
        })
    }

    /// The prompts of each branch, the positive one first, each repeated for the images of a prompt.
    pub(crate) fn encode(
        &self,
        branches: &Branches,
        images_per_prompt: usize,
        text_len: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<FluxText>> {
        let _span = tracing::info_span!("encode").entered();
        let lists: Vec<_> = std::iter::once(&branches.positive)
            .chain(&branches.negative)
            .collect();
        let total = 2 * lists.len() as u64;
        observer.phase(Phase::Encode, PhaseEvent::Start { total });
        let mut texts = Vec::with_capacity(lists.len());
        for (branch, [prompt, prompt_2]) in lists.into_iter().enumerate() {
            let prefix = ["", "negative_"][branch];
            let done = 2 * branch as u64;
            let clip_length = self.tokenizer.model_max_length().unwrap_or(CLIP_LENGTH);
            let clip_length = clip_length.min(self.text_encoder.config().max_position_embeddings);
            let ids = tokenize(
                &self.tokenizer,
                prompt,
                clip_length,
                ["CLIP", "text_encoder"],
                self.text_encoder.config().vocab_size,
                observer,
            )?;
            observer.ids(&format!("{prefix}clip.input_ids"), &ids);
            let mut silent = ();
            let inside: &mut dyn Observer = if branch == 0 {
                &mut *observer
            } else {
                &mut silent
            };
            let pooled = self.text_encoder.forward(&ids, inside)?.pooled;
            observer.phase(
                Phase::Encode,
                PhaseEvent::Advance {
                    done: done + 1,
                    total,
                },
            );

            let ids = tokenize(
                &self.tokenizer_2,
                prompt_2,
                text_len,
                ["T5", "text_encoder_2"],
                self.text_encoder_2.config().vocab_size,
                observer,
            )?;
            observer.ids(&format!("{prefix}t5.input_ids"), &ids);
            let inside: &mut dyn Observer = if branch == 0 {
                &mut *observer
            } else {
                &mut silent
            };
            let embeds = self.text_encoder_2.forward(&ids, None, inside)?;
            observer.phase(
                Phase::Encode,
                PhaseEvent::Advance {
                    done: done + 2,
                    total,
                },
            );

            let embeds = repeat(&embeds, images_per_prompt)?;
            let pooled = repeat(&pooled, images_per_prompt)?;
            observer.offer(&format!("{prefix}prompt_embeds"), &embeds)?;
            observer.offer(&format!("{prefix}pooled_prompt_embeds"), &pooled)?;
            texts.push(self.transformer.embed_text(&embeds, &pooled)?);
        }
        observer.phase(Phase::Encode, PhaseEvent::End);
        Ok(texts)
    }
}

/// Bytes of all weights as they are packed: Winograd's form of a 3×3 convolution has 36 f32 for its 9 taps.
fn packed_bytes(all: &[&Weights], dtype: DType) -> u64 {
    all.iter()
        .flat_map(|weights| weights.tensors())
        .map(|(_, info)| {
            let each = if matches!(info.shape[..], [_, _, 3, 3]) {
                16
            } else {
                dtype.size() as u64
            };
            info.shape.iter().map(|dim| *dim as u64).product::<u64>() * each
        })
        .sum()
}

/// The ids of `prompts`, with a warning for each that was cut.
fn tokenize(
    tokenizer: &Tokenizer,
    prompts: &[String],
    length: usize,
    [encoder, folder]: [&str; 2],
    vocab_size: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<u32>>> {
    prompts
        .iter()
        .map(|prompt| {
            let encoded = tokenizer.encode(prompt, length)?;
            if let Some(removed) = encoded.removed {
                observer.warning(&format!(
                    "the end of the prompt ({} tokens) was cut off, because {encoder} reads {length} tokens: {}",
                    removed.tokens, removed.text
                ));
            }
            match encoded.ids.iter().find(|id| **id as usize >= vocab_size) {
                Some(id) => Err(Error::BadConfig {
                    file: format!("{folder}/config.json"),
                    field: "vocab_size".into(),
                    expected: format!("more than {id}, an id of its tokenizer"),
                    found: vocab_size.to_string(),
                }),
                None => Ok(encoded.ids),
            }
        })
        .collect()
}

/// Each row `times` in succession.
fn repeat(rows: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(rows.clone());
    }
    let views = (0..rows.dim(0) * times)
        .map(|i| rows.view().narrow(0, i / times, 1))
        .collect::<xdit_kernels::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&views, 0)?)
}
