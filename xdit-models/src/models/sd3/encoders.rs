//! Encodes prompts for an SD3 transformer.

use xdit_pipefusion::Blocks;

use super::configs::{Configs, MAX_SEQUENCE_LENGTH};
use super::{PromptEmbeds, Sd3Transformer};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::files::weights::{Scope, Weights};
use crate::layers::Packing;
use crate::models::dit::DitShape;
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::pipeline::finite::{Finite, Origin, Whose};
use crate::pipeline::request::Branches3;
use crate::pipeline::store::{ModelLoader, ModelStore, one_range};
use crate::text::prompts::{Reader, repeat, tokenize, tokenizer};
use crate::text::tokenizers::Tokenizer;
use crate::text::{ClipTextModel, EncoderSize, T5Config, T5Encoder};
use crate::vae::VaeConfig;

/// The text encoders.
#[derive(Debug)]
pub(crate) struct Encoders {
    clip: [ClipTextModel; 2],
    t5: Option<T5Encoder>,
}

/// The names of CLIP's tensors for observers.
const CLIP: [&str; 2] = ["clip", "clip_2"];

/// The folders of the encoders.
const FOLDERS: [&str; 3] = ["text_encoder", "text_encoder_2", "text_encoder_3"];

impl ModelLoader for Configs {
    type Dit = Sd3Transformer;
    type Encoders = Encoders;

    fn encoder_names(&self) -> Vec<&'static str> {
        let mut names = vec!["text_encoder", "text_encoder_2"];
        names.extend(self.t5.as_ref().map(|_| "text_encoder_3"));
        names
    }

    fn encoder_sizes(&self) -> Vec<EncoderSize> {
        let mut sizes = vec![self.clip.size(true), self.clip_2.size(true)];
        sizes.extend(self.t5.as_ref().map(T5Config::size));
        sizes
    }

    fn pack_encoders(&self, weights: &[Weights], packing: &mut Packing<'_>) -> Result<Encoders> {
        let [clip, clip_2, rest @ ..] = weights else {
            let expected = "the weights of two CLIP encoders";
            return Err(xdit_kernels::Error::shape("load", expected, weights.len()).into());
        };
        let mut load = |config, weights: &Weights, name| {
            let scope = Scope::root(weights);
            let model = ClipTextModel::load_with_projection(config, &scope, packing)?;
            Ok::<_, crate::Error>(model.named(name))
        };
        Ok(Encoders {
            clip: [
                load(&self.clip, clip, CLIP[0])?,
                load(&self.clip_2, clip_2, CLIP[1])?,
            ],
            t5: match (&self.t5, rest) {
                (Some(config), [weights]) => {
                    Some(T5Encoder::load(config, &Scope::root(weights), packing)?)
                }
                _ => None,
            },
        })
    }

    fn pack_transformer(
        &self,
        blocks: &Blocks,
        weights: &Weights,
        packing: &mut Packing<'_>,
    ) -> Result<Sd3Transformer> {
        Sd3Transformer::load_blocks(
            &self.sd3,
            one_range(blocks)?,
            &Scope::root(weights),
            packing,
        )
    }

    fn shape(&self) -> &dyn DitShape {
        &self.sd3
    }

    fn vae(&self) -> &VaeConfig {
        &self.vae
    }
}

/// The tokenizers of both CLIP encoders and of T5, if there is one.
#[derive(Debug)]
pub(crate) struct Tokenizers {
    clip: [Tokenizer; 2],
    t5: Option<Tokenizer>,
}

impl Tokenizers {
    pub(crate) fn read(source: &ModelSource, configs: &Configs) -> Result<Self> {
        let read = |name, folder, vocab_size, length| {
            let reader = Reader {
                folder,
                vocab_size,
                length,
            };
            tokenizer(source, &configs.index, name, reader)
        };
        let length = configs.clip_length;
        let (clip, clip_2) = (configs.clip.vocab_size, configs.clip_2.vocab_size);
        Ok(Self {
            clip: [
                read("tokenizer", "text_encoder", clip, length)?,
                read("tokenizer_2", "text_encoder_2", clip_2, length)?,
            ],
            t5: match &configs.t5 {
                Some(t5) => {
                    let longest = MAX_SEQUENCE_LENGTH;
                    Some(read(
                        "tokenizer_3",
                        "text_encoder_3",
                        t5.vocab_size,
                        longest,
                    )?)
                }
                None => None,
            },
        })
    }
}

/// Returns the embeddings of each branch, the positive one first, repeated for the images of each prompt. Layers of CLIP are
/// skipped only for the positive branch, as in diffusers.
pub(crate) fn encode(
    store: &ModelStore<Configs>,
    tokenizers: &Tokenizers,
    branches: &Branches3,
    [images_per_prompt, sequence_length, clip_skip]: [usize; 3],
    finite: &Finite,
    observer: &mut dyn Observer,
) -> Result<Vec<PromptEmbeds>> {
    let configs = &store.configs;
    store.with_encoders(observer, |encoders, observer| {
        let lists: Vec<_> = std::iter::once(&branches.positive)
            .chain(&branches.negative)
            .collect();
        let (mut done, total) = (0, 3 * lists.len() as u64);
        observer.phase(Phase::Encode, PhaseEvent::Start { total });
        let mut advance = |observer: &mut dyn Observer| {
            done += 1;
            observer.phase(Phase::Encode, PhaseEvent::Advance { done, total });
        };
        let mut embeds = Vec::with_capacity(lists.len());
        for (branch, prompts) in lists.into_iter().enumerate() {
            let prefix = ["", "negative_"][branch];
            let mut silent = observer.cancel_token();
            let whose = Whose::prompts(prompts[0].len());
            let mut outputs = Vec::with_capacity(2);
            for (i, config) in [&configs.clip, &configs.clip_2].into_iter().enumerate() {
                let ids = tokenize(
                    &tokenizers.clip[i],
                    &prompts[i],
                    configs.clip_length,
                    ["CLIP", FOLDERS[i]],
                    config.vocab_size,
                    observer,
                )?;
                observer.ids(&format!("{prefix}{}.input_ids", CLIP[i]), &ids);
                let skipped = [clip_skip, 0][branch];
                let inside: &mut dyn Observer = match branch {
                    0 => &mut *observer,
                    _ => &mut silent,
                };
                let output = encoders.clip[i].forward_skipping(&ids, skipped, inside)?;
                let pooled = output.text_embeds.as_ref();
                for embeds in pooled.into_iter().chain([&output.prompt_embeds]) {
                    finite.check(embeds, whose, || Origin::TextEncoder(FOLDERS[i], prefix))?;
                }
                if let Some(embeds) = &output.text_embeds {
                    observer.offer(&format!("{prefix}{}.text_embeds", CLIP[i]), embeds)?;
                }
                outputs.push(output);
                advance(observer);
            }
            let t5 = match (&encoders.t5, &tokenizers.t5, &configs.t5) {
                (Some(encoder), Some(tokenizer), Some(config)) => {
                    let ids = tokenize(
                        tokenizer,
                        &prompts[2],
                        sequence_length,
                        ["T5", FOLDERS[2]],
                        config.vocab_size,
                        observer,
                    )?;
                    observer.ids(&format!("{prefix}t5.input_ids"), &ids);
                    let inside: &mut dyn Observer = match branch {
                        0 => &mut *observer,
                        _ => &mut silent,
                    };
                    let embeds = encoder.forward(&ids, None, inside)?;
                    finite.check(&embeds, whose, || Origin::TextEncoder(FOLDERS[2], prefix))?;
                    Some(embeds)
                }
                _ => None,
            };
            advance(observer);
            let clip = [&outputs[0], &outputs[1]];
            let mut joined = PromptEmbeds::join(&configs.sd3, clip, t5.as_ref(), sequence_length)?;
            joined.prompt_embeds = repeat(&joined.prompt_embeds, images_per_prompt)?;
            joined.pooled = repeat(&joined.pooled, images_per_prompt)?;
            observer.offer(&format!("{prefix}prompt_embeds"), &joined.prompt_embeds)?;
            observer.offer(&format!("{prefix}pooled_prompt_embeds"), &joined.pooled)?;
            embeds.push(joined);
        }
        observer.phase(Phase::Encode, PhaseEvent::End);
        Ok(embeds)
    })
}
