//! From prompts to what a HunyuanDiT transformer reads of them (diffusers `HunyuanDiTPipeline.encode_prompt`).

use xdit_kernels::Tensor;
use xdit_pipefusion::Blocks;

use super::HunyuanTransformer;
use super::configs::{Configs, TEXT_LENGTHS};
use crate::dit::{DitShape, Reader, Recipe, Store, repeat, tokenize_masked, tokenizer};
use crate::error::Result;
use crate::layers::Packing;
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::source::ModelSource;
use crate::text::{BertEncoder, EncoderSize, T5Encoder};
use crate::tokenizers::{Encoded, Tokenizer};
use crate::vae::VaeConfig;
use crate::weights::{Scope, Weights};

/// The models that read prompts.
#[derive(Debug)]
pub(crate) struct Encoders {
    bert: BertEncoder,
    t5: T5Encoder,
}

impl Recipe for Configs {
    type Dit = HunyuanTransformer;
    type Encoders = Encoders;

    fn encoder_names(&self) -> Vec<&'static str> {
        vec!["text_encoder", "text_encoder_2"]
    }

    fn encoder_sizes(&self) -> Vec<EncoderSize> {
        vec![self.bert.size(), self.t5.size()]
    }

    fn pack_encoders(&self, weights: &[Weights], packing: &mut Packing<'_>) -> Result<Encoders> {
        let [bert, t5] = weights else {
            return Err(xdit_kernels::Error::shape("load", "two encoders", weights.len()).into());
        };
        Ok(Encoders {
            bert: BertEncoder::load(&self.bert, &Scope::root(bert), packing)?,
            t5: T5Encoder::load(&self.t5, &Scope::root(t5), packing)?,
        })
    }

    fn pack_transformer(
        &self,
        blocks: &Blocks,
        weights: &Weights,
        packing: &mut Packing<'_>,
    ) -> Result<HunyuanTransformer> {
        HunyuanTransformer::load_blocks(&self.hunyuan, blocks, &Scope::root(weights), packing)
    }

    fn holds(transformer: &HunyuanTransformer, blocks: &Blocks) -> bool {
        transformer.held.holds(blocks)
    }

    fn shape(&self) -> &dyn DitShape {
        &self.hunyuan
    }

    fn vae(&self) -> &VaeConfig {
        &self.vae
    }
}

/// BERT's and mT5's tokenizers.
#[derive(Debug)]
pub(crate) struct Tokenizers {
    tokenizer: Tokenizer,
    tokenizer_2: Tokenizer,
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
        let (bert, t5) = (configs.bert.vocab_size, configs.t5.vocab_size);
        let [bert_length, t5_length] = TEXT_LENGTHS;
        Ok(Self {
            tokenizer: read("tokenizer", "text_encoder", bert, bert_length)?,
            tokenizer_2: read("tokenizer_2", "text_encoder_2", t5, t5_length)?,
        })
    }
}

/// What the transformer reads of the prompts of one branch: a row for each image.
#[derive(Clone, Debug)]
pub(crate) struct PromptEmbeds {
    /// BERT's `[b, text_len, cross_attention_dim]` and mT5's `[b, text_len_t5, cross_attention_dim_t5]`.
    pub(crate) embeds: [Tensor; 2],
    /// `[b, text_len]` and `[b, text_len_t5]`, true where there is text.
    pub(crate) masks: [Vec<bool>; 2],
}

/// The embeddings and masks of each branch, the positive one first, each repeated for the images of a prompt. A branch is a list
/// of prompts.
pub(crate) fn encode(
    store: &Store<Configs>,
    tokenizers: &Tokenizers,
    branches: &[Vec<String>],
    images_per_prompt: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<PromptEmbeds>> {
    let configs = &store.configs;
    store.with_encoders(observer, |encoders, observer| {
        let (mut done, total) = (0, 2 * branches.len() as u64);
        observer.phase(Phase::Encode, PhaseEvent::Start { total });
        let mut advance = |observer: &mut dyn Observer| {
            done += 1;
            observer.phase(Phase::Encode, PhaseEvent::Advance { done, total });
        };
        let mut embeds = Vec::with_capacity(branches.len());
        for (branch, prompts) in branches.iter().enumerate() {
            let prefix = ["", "negative_"][branch.min(1)];
            let mut silent = ();
            // Encoders' layers are shown of the first branch only, as the others' names.
            let bert = Inputs::of(tokenize_masked(
                &tokenizers.tokenizer,
                prompts,
                configs.hunyuan.text_len,
                ["BERT", "text_encoder"],
                configs.bert.vocab_size,
                observer,
            )?);
            observer.ids(&format!("{prefix}bert.input_ids"), &bert.ids);
            let inside: &mut dyn Observer = match branch {
                0 => &mut *observer,
                _ => &mut silent,
            };
            let first = encoders.bert.forward(&bert.ids, Some(&bert.mask), inside)?;
            advance(observer);
            let t5 = Inputs::of(tokenize_masked(
                &tokenizers.tokenizer_2,
                prompts,
                configs.hunyuan.text_len_t5,
                ["mT5", "text_encoder_2"],
                configs.t5.vocab_size,
                observer,
            )?);
            observer.ids(&format!("{prefix}t5.input_ids"), &t5.ids);
            let inside: &mut dyn Observer = match branch {
                0 => &mut *observer,
                _ => &mut silent,
            };
            let second = encoders.t5.forward(&t5.ids, Some(&t5.mask), inside)?;
            advance(observer);
            let masks = [bert.mask, t5.mask];
            let encoded = PromptEmbeds::of_images([&first, &second], masks, images_per_prompt)?;
            encoded.show(prefix, observer)?;
            embeds.push(encoded);
        }
        observer.phase(Phase::Encode, PhaseEvent::End);
        Ok(embeds)
    })
}

impl PromptEmbeds {
    /// As in diffusers, embeddings are repeated prompt by prompt (`p0 p0 p1 p1`) and masks as a whole (`p0 p1 p0 p1`): with
    /// several prompts of several images each, an image may get the mask of another prompt.
    fn of_images(
        [bert, t5]: [&Tensor; 2],
        masks: [Vec<bool>; 2],
        images_per_prompt: usize,
    ) -> Result<Self> {
        let times = images_per_prompt;
        Ok(Self {
            embeds: [repeat(bert, times)?, repeat(t5, times)?],
            masks: masks.map(|mask| mask.repeat(times)),
        })
    }

    /// Offers everything under the names of diffusers' pipeline and transformer; masks as ones and zeros.
    fn show(&self, prefix: &str, observer: &mut dyn Observer) -> Result<()> {
        let names = ["prompt_embeds", "prompt_embeds_2"];
        for (name, embeds) in names.into_iter().zip(&self.embeds) {
            observer.offer(&format!("{prefix}{name}"), embeds)?;
        }
        let names = ["text_embedding_mask", "text_embedding_mask_t5"];
        for ((name, mask), embeds) in names.into_iter().zip(&self.masks).zip(&self.embeds) {
            let ones: Vec<f32> = mask.iter().map(|text| f32::from(*text)).collect();
            let mask_bl = Tensor::from_slice(&ones, [embeds.dim(0), embeds.dim(1)])?;
            observer.offer(&format!("{prefix}{name}"), &mask_bl)?;
        }
        Ok(())
    }
}

/// What a text encoder gets of a batch of prompts.
struct Inputs {
    ids: Vec<Vec<u32>>,
    /// `[b, l]`.
    mask: Vec<bool>,
}

impl Inputs {
    fn of(encoded: Vec<Encoded>) -> Self {
        Self {
            mask: encoded.iter().flat_map(Encoded::attention_mask).collect(),
            ids: encoded.into_iter().map(|row| row.ids).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_repeated_prompt_by_prompt_and_masks_as_a_whole() {
        let embeds_blc = Tensor::from_slice(&[1f32, 2.], [2, 1, 1]).unwrap();
        let masks = [vec![true, false], vec![false, true]];
        let images = PromptEmbeds::of_images([&embeds_blc; 2], masks, 2).unwrap();
        for embeds in &images.embeds {
            assert_eq!(embeds.to_f32_vec(), [1., 1., 2., 2.]);
        }
        assert_eq!(images.masks[0], [true, false, true, false]);
        assert_eq!(images.masks[1], [false, true, false, true]);
    }
}
