//! The parts of a Flux pipeline: loading them, and the embeddings of prompts.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use xdit_kernels::{DType, Tensor};

use super::configs::Configs;
use super::{FluxTransformer, costs};
use crate::dit::Painter;
use crate::error::{Error, Result};
use crate::layers::Packing;
use crate::memory;
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::pipeline::LoadOptions;
use crate::request::Branches;
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

/// A Flux pipeline's configurations, and its weights as far as they are held.
#[derive(Debug)]
pub(crate) struct Components {
    pub(crate) configs: Configs,
    tokenizer: Tokenizer,
    tokenizer_2: Tokenizer,
    source: ModelSource,
    options: LoadOptions,
    /// `None` where they are read for each call and let go before it denoises.
    encoders: Option<Encoders>,
    /// Loaded once, by the first call if not before.
    painter: Mutex<Option<Arc<Painter<FluxTransformer>>>>,
    /// Held while encoders that no one keeps are in memory, so that there is one copy of them.
    encoding: Mutex<()>,
}

/// The models that read prompts.
#[derive(Debug)]
struct Encoders {
    text_encoder: ClipTextModel,
    text_encoder_2: T5Encoder,
}

const ENCODERS: [&str; 2] = ["text_encoder", "text_encoder_2"];
const PAINTER: [&str; 2] = ["transformer", "vae"];

impl Components {
    pub(crate) fn load(
        source: &ModelSource,
        options: &LoadOptions,
        one_stage: bool,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let _span = tracing::info_span!("load").entered();
        // Configurations first: what is wrong with them shows before any weight is read.
        let configs = Configs::read(source)?;
        let index = &configs.index;
        let tokenizer =
            |name: &str| Tokenizer::read(source, name, &index.expect(name, TOKENIZERS)?.class);
        let tokenizer_2 = tokenizer("tokenizer_2")?.with_vocab_size(configs.t5.vocab_size);
        let tokenizer = tokenizer("tokenizer")?.with_vocab_size(configs.clip.vocab_size);
        let mut components = Self {
            tokenizer,
            tokenizer_2,
            configs,
            source: source.clone(),
            options: options.clone(),
            encoders: None,
            painter: Mutex::new(None),
            encoding: Mutex::new(()),
        };
        if options.low_memory {
            // Headers only: a missing file shows now, not after the prompts are encoded.
            for names in [ENCODERS, PAINTER] {
                components.check_memory(&[&components.open(names)?])?;
            }
            return Ok(components);
        }
        if one_stage {
            // Which blocks they are is not known yet.
            components.open(PAINTER)?;
            let of_encoders = components.open(ENCODERS)?;
            components.check_memory(&[&of_encoders])?;
            let encoders = components.packed(&[&of_encoders], observer, |packing| {
                components.pack_encoders(&of_encoders, packing)
            })?;
            components.encoders = Some(encoders);
            return Ok(components);
        }
        let [of_painter, of_encoders] = [components.open(PAINTER)?, components.open(ENCODERS)?];
        let all = [&of_painter, &of_encoders];
        let all_blocks = 0..components.configs.flux.block_count();
        components.check_memory(&all)?;
        let (painter, encoders) = components.packed(&all, observer, |packing| {
            Ok((
                components.pack_painter(&of_painter, all_blocks, packing)?,
                components.pack_encoders(&of_encoders, packing)?,
            ))
        })?;
        components.encoders = Some(encoders);
        components.painter = Mutex::new(Some(Arc::new(painter)));
        Ok(components)
    }

    fn open(&self, [first, second]: [&str; 2]) -> Result<[Weights; 2]> {
        let open = |name| {
            self.source
                .open_weights(name, self.options.variant.as_deref())
        };
        Ok([open(first)?, open(second)?])
    }

    fn check_memory(&self, weights: &[&[Weights; 2]]) -> Result<()> {
        let bytes = packed_bytes(weights, self.options.dtype);
        memory::check("the weights", bytes, self.options.memory_limit)
    }

    /// What `pack` makes of these weights, with progress over their bytes.
    fn packed<T>(
        &self,
        weights: &[&[Weights; 2]],
        observer: &mut dyn Observer,
        pack: impl FnOnce(&mut Packing<'_>) -> Result<T>,
    ) -> Result<T> {
        let files = weights.iter().copied().flatten();
        let total = files.map(Weights::total_bytes).sum();
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
        let (dtype, device) = (self.options.dtype, self.options.device);
        let made = pack(&mut Packing::new(dtype, device).on_packed(&mut on_packed))?;
        observer.phase(Phase::Load, PhaseEvent::End);
        Ok(made)
    }

    fn pack_painter(
        &self,
        [transformer, vae]: &[Weights; 2],
        blocks: Range<usize>,
        packing: &mut Packing<'_>,
    ) -> Result<Painter<FluxTransformer>> {
        Ok(Painter {
            transformer: FluxTransformer::load_blocks(
                &self.configs.flux,
                blocks,
                &Scope::root(transformer),
                packing,
            )?,
            vae: VaeDecoder::load(&self.configs.vae, &Scope::root(vae), packing)?,
        })
    }

    fn pack_encoders(
        &self,
        [clip, t5]: &[Weights; 2],
        packing: &mut Packing<'_>,
    ) -> Result<Encoders> {
        Ok(Encoders {
            text_encoder: ClipTextModel::load(&self.configs.clip, &Scope::root(clip), packing)?,
            text_encoder_2: T5Encoder::load(&self.configs.t5, &Scope::root(t5), packing)?,
        })
    }

    /// These blocks of the transformer, and the autoencoder, loaded now if they were not before.
    pub(crate) fn painter(
        &self,
        blocks: Range<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Arc<Painter<FluxTransformer>>> {
        let mut painter = self.painter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(painter) = painter
            .as_ref()
            .filter(|painter| painter.transformer.holds(&blocks))
        {
            return Ok(painter.clone());
        }
        // Other blocks than before leave first.
        *painter = None;
        let _span = tracing::info_span!("load").entered();
        let weights = self.open(PAINTER)?;
        match blocks.len() == self.configs.flux.block_count() {
            true => self.check_memory(&[&weights])?,
            false => {
                let bytes =
                    costs::stage_bytes(&self.configs.flux, blocks.clone(), self.options.dtype);
                memory::check("the weights of a stage", bytes, self.options.memory_limit)?;
            }
        }
        let made = self.packed(&[&weights], observer, |packing| {
            self.pack_painter(&weights, blocks, packing)
        })?;
        Ok(painter.insert(Arc::new(made)).clone())
    }

    /// T5 and pooled CLIP embeddings of each branch, the positive one first, each repeated for the images of a prompt.
    pub(crate) fn encode(
        &self,
        branches: &Branches,
        images_per_prompt: usize,
        text_len: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<[Tensor; 2]>> {
        let (_one_copy, loaded);
        let encoders = match &self.encoders {
            Some(encoders) => encoders,
            None => {
                _one_copy = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
                let weights = self.open(ENCODERS)?;
                loaded = self.packed(&[&weights], observer, |packing| {
                    self.pack_encoders(&weights, packing)
                })?;
                &loaded
            }
        };
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
            let clip_length = clip_length.min(self.configs.clip.max_position_embeddings);
            let ids = tokenize(
                &self.tokenizer,
                prompt,
                clip_length,
                ["CLIP", "text_encoder"],
                self.configs.clip.vocab_size,
                observer,
            )?;
            observer.ids(&format!("{prefix}clip.input_ids"), &ids);
            let mut silent = ();
            let inside: &mut dyn Observer = if branch == 0 {
                &mut *observer
            } else {
                &mut silent
            };
            let pooled = encoders.text_encoder.forward(&ids, inside)?.pooled;
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
                self.configs.t5.vocab_size,
                observer,
            )?;
            observer.ids(&format!("{prefix}t5.input_ids"), &ids);
            let inside: &mut dyn Observer = if branch == 0 {
                &mut *observer
            } else {
                &mut silent
            };
            let embeds = encoders.text_encoder_2.forward(&ids, None, inside)?;
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
    }
}

/// Bytes of all weights as they are packed: Winograd's form of a 3×3 convolution has 36 f32 for its 9 taps.
fn packed_bytes(all: &[&[Weights; 2]], dtype: DType) -> u64 {
    all.iter()
        .copied()
        .flatten()
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
