//! The text inputs of a Flux transformer: CLIP's pooled embeddings and T5's embeddings.

use xdit_kernels::Tensor;

use super::FluxTransformer;
use xdit_pipefusion::Blocks;

use super::configs::{Configs, RULES};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::files::weights::{Scope, Weights};
use crate::layers::Packing;
use crate::models::dit::DitShape;
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::pipeline::finite::{Finite, Origin, Whose};
use crate::pipeline::request::Branches;
use crate::pipeline::store::{ModelLoader, ModelStore, one_range};
use crate::text::prompts::{Reader, repeat, tokenize, tokenizer};
use crate::text::tokenizers::Tokenizer;
use crate::text::{ClipTextModel, EncoderSize, T5Encoder};
use crate::vae::VaeConfig;

/// The text encoders.
#[derive(Debug)]
pub(crate) struct Encoders {
    text_encoder: ClipTextModel,
    text_encoder_2: T5Encoder,
}

impl ModelLoader for Configs {
    type Dit = FluxTransformer;
    type Encoders = Encoders;

    fn encoder_names(&self) -> Vec<&'static str> {
        vec!["text_encoder", "text_encoder_2"]
    }

    fn encoder_sizes(&self) -> Vec<EncoderSize> {
        vec![self.clip.size(false), self.t5.size()]
    }

    fn pack_encoders(&self, weights: &[Weights], packing: &mut Packing<'_>) -> Result<Encoders> {
        let [clip, t5] = weights else {
            return Err(xdit_kernels::Error::shape("load", "two encoders", weights.len()).into());
        };
        Ok(Encoders {
            text_encoder: ClipTextModel::load(&self.clip, &Scope::root(clip), packing)?,
            text_encoder_2: T5Encoder::load(&self.t5, &Scope::root(t5), packing)?,
        })
    }

    fn pack_transformer(
        &self,
        blocks: &Blocks,
        weights: &Weights,
        packing: &mut Packing<'_>,
    ) -> Result<FluxTransformer> {
        FluxTransformer::load_blocks(
            &self.flux,
            one_range(blocks)?,
            &Scope::root(weights),
            packing,
        )
    }

    fn shape(&self) -> &dyn DitShape {
        &self.flux
    }

    fn vae(&self) -> &VaeConfig {
        &self.vae
    }
}

/// The tokenizers of CLIP and T5.
#[derive(Debug)]
pub(crate) struct Tokenizers {
    tokenizer: Tokenizer,
    tokenizer_2: Tokenizer,
}

impl Tokenizers {
    pub(crate) fn read(source: &ModelSource, configs: &Configs) -> Result<Self> {
        let read = |name, reader| tokenizer(source, &configs.index, name, reader);
        let t5 = Reader {
            folder: "text_encoder_2",
            vocab_size: configs.t5.vocab_size,
            length: RULES.max_sequence_length,
        };
        let clip = Reader {
            folder: "text_encoder",
            vocab_size: configs.clip.vocab_size,
            length: configs.clip_length,
        };
        Ok(Self {
            tokenizer_2: read("tokenizer_2", t5)?,
            tokenizer: read("tokenizer", clip)?,
        })
    }
}

/// T5 and pooled CLIP embeddings of each branch, the positive one first, repeated for the images of each prompt.
pub(crate) fn encode(
    store: &ModelStore<Configs>,
    tokenizers: &Tokenizers,
    branches: &Branches,
    [images_per_prompt, text_len]: [usize; 2],
    finite: &Finite,
    observer: &mut dyn Observer,
) -> Result<Vec<[Tensor; 2]>> {
    let configs = &store.configs;
    store.with_encoders(observer, |encoders, observer| {
        let lists: Vec<_> = std::iter::once(&branches.positive)
            .chain(&branches.negative)
            .collect();
        let total = 2 * lists.len() as u64;
        observer.phase(Phase::Encode, PhaseEvent::Start { total });
        let mut texts = Vec::with_capacity(lists.len());
        for (branch, [prompt, prompt_2]) in lists.into_iter().enumerate() {
            let prefix = ["", "negative_"][branch];
            let done = 2 * branch as u64;
            let ids = tokenize(
                &tokenizers.tokenizer,
                prompt,
                configs.clip_length,
                ["CLIP", "text_encoder"],
                configs.clip.vocab_size,
                observer,
            )?;
            observer.ids(&format!("{prefix}clip.input_ids"), &ids);
            let mut silent = observer.cancel_token();
            let inside: &mut dyn Observer = if branch == 0 {
                &mut *observer
            } else {
                &mut silent
            };
            let pooled = encoders.text_encoder.forward(&ids, inside)?.pooled;
            let prompts = Whose::prompts(prompt.len());
            finite.check(&pooled, prompts, || {
                Origin::TextEncoder("text_encoder", prefix)
            })?;
            observer.phase(
                Phase::Encode,
                PhaseEvent::Advance {
                    done: done + 1,
                    total,
                },
            );

            let ids = tokenize(
                &tokenizers.tokenizer_2,
                prompt_2,
                text_len,
                ["T5", "text_encoder_2"],
                configs.t5.vocab_size,
                observer,
            )?;
            observer.ids(&format!("{prefix}t5.input_ids"), &ids);
            let inside: &mut dyn Observer = if branch == 0 {
                &mut *observer
            } else {
                &mut silent
            };
            let embeds = encoders.text_encoder_2.forward(&ids, None, inside)?;
            finite.check(&embeds, prompts, || {
                Origin::TextEncoder("text_encoder_2", prefix)
            })?;
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
            texts.push([embeds, pooled]);
        }
        observer.phase(Phase::Encode, PhaseEvent::End);
        Ok(texts)
    })
}
