//! Encodes prompts for a HunyuanDiT transformer (diffusers `HunyuanDiTPipeline.encode_prompt`).

use xdit_kernels::Tensor;
use xdit_pipefusion::Blocks;

use super::HunyuanTransformer;
use super::configs::{Configs, TEXT_LENGTHS};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::files::weights::{Scope, Weights};
use crate::layers::Packing;
use crate::models::dit::DitShape;
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::pipeline::finite::{Finite, Origin, Whose};
use crate::pipeline::store::{ModelLoader, ModelStore};
use crate::text::prompts::{Reader, repeat, tokenize_masked, tokenizer};
use crate::text::tokenizers::{Encoded, Tokenizer};
use crate::text::{BertEncoder, EncoderSize, T5Encoder};
use crate::vae::VaeConfig;

/// The text encoders.
#[derive(Debug)]
pub(crate) struct Encoders {
    bert: BertEncoder,
    t5: T5Encoder,
}

impl ModelLoader for Configs {
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

    fn shape(&self) -> &dyn DitShape {
        &self.hunyuan
    }

    fn vae(&self) -> &VaeConfig {
        &self.vae
    }
}

/// The tokenizers of BERT and mT5.
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

/// The text inputs of the transformer for one branch, with one row per image.
#[derive(Clone, Debug)]
pub(crate) struct HunyuanEmbeds {
    /// Embeddings of BERT `[b, text_len, cross_attention_dim]` and mT5 `[b, text_len_t5, cross_attention_dim_t5]`.
    pub(crate) embeds: [Tensor; 2],
    /// `[b, text_len]` and `[b, text_len_t5]`, true where there is text.
    pub(crate) masks: [Vec<bool>; 2],
}

/// The number of images per prompt, and whether they read masks as in diffusers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImagesOfPrompts {
    pub(crate) each: usize,
    pub(crate) exact_diffusers: bool,
}

/// Returns the embeddings and masks of each branch, the positive one first, repeated for the images of each prompt. A branch is
/// a list of prompts. Warns once if diffusers would draw other images.
pub(crate) fn encode(
    store: &ModelStore<Configs>,
    tokenizers: &Tokenizers,
    branches: &[Vec<String>],
    images: ImagesOfPrompts,
    finite: &Finite,
    observer: &mut dyn Observer,
) -> Result<Vec<HunyuanEmbeds>> {
    let configs = &store.configs;
    store.with_encoders(observer, |encoders, observer| {
        let (mut done, total) = (0, 2 * branches.len() as u64);
        observer.phase(Phase::Encode, PhaseEvent::Start { total });
        let mut advance = |observer: &mut dyn Observer| {
            done += 1;
            observer.phase(Phase::Encode, PhaseEvent::Advance { done, total });
        };
        let mut embeds = Vec::with_capacity(branches.len());
        let mut differs = false;
        for (branch, prompts) in branches.iter().enumerate() {
            let prefix = ["", "negative_"][branch.min(1)];
            let mut silent = observer.cancel_token();
            // Only the first branch shows the layers of encoders, because the others would have the same names.
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
            let whose = Whose::prompts(prompts.len());
            finite.check(&first, whose, || {
                Origin::TextEncoder("text_encoder", prefix)
            })?;
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
            finite.check(&second, whose, || {
                Origin::TextEncoder("text_encoder_2", prefix)
            })?;
            advance(observer);
            let masks = [bert.mask, t5.mask];
            differs |= masks.iter().any(|mask| {
                in_turn(mask, prompts.len(), images.each) != mask.repeat(images.each)
            });
            let encoded = HunyuanEmbeds::of_images([&first, &second], masks, images)?;
            encoded.show(prefix, observer)?;
            embeds.push(encoded);
        }
        observer.phase(Phase::Encode, PhaseEvent::End);
        if differs && !images.exact_diffusers {
            observer.warning(
                "diffusers draws other images here: of several prompts with several images each, some images read the mask \
                 of another prompt there; here each reads its own (exact_diffusers copies the fault)",
            );
        }
        Ok(embeds)
    })
}

/// Repeats each of the `prompts` rows of a mask `times` in succession.
fn in_turn(mask: &[bool], prompts: usize, times: usize) -> Vec<bool> {
    let rows = mask.chunks((mask.len() / prompts.max(1)).max(1));
    rows.flat_map(|row| row.repeat(times)).collect()
}

impl HunyuanEmbeds {
    /// Embeddings and masks are repeated prompt by prompt (`p0 p0 p1 p1`). diffusers repeats the masks as a whole
    /// (`p0 p1 p0 p1`): with several prompts of several images each, an image may get the mask of another prompt there.
    fn of_images(
        [bert, t5]: [&Tensor; 2],
        masks: [Vec<bool>; 2],
        images: ImagesOfPrompts,
    ) -> Result<Self> {
        let (prompts, times) = (bert.dim(0), images.each);
        Ok(Self {
            embeds: [repeat(bert, times)?, repeat(t5, times)?],
            masks: masks.map(|mask| match images.exact_diffusers {
                true => mask.repeat(times),
                false => in_turn(&mask, prompts, times),
            }),
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
            let mask_bl =
                Tensor::from_slice(&ones, [embeds.dim(0), embeds.dim(1)], embeds.device())?;
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
    use xdit_kernels::Device;

    #[test]
    fn masks_stay_with_their_prompts_unless_diffusers_is_copied() {
        let embeds_blc = Tensor::from_slice(&[1f32, 2.], [2, 1, 1], &Device::cpu()).unwrap();
        for (exact_diffusers, masks) in [
            (
                false,
                [[true, true, false, false], [false, false, true, true]],
            ),
            (
                true,
                [[true, false, true, false], [false, true, false, true]],
            ),
        ] {
            let images = ImagesOfPrompts {
                each: 2,
                exact_diffusers,
            };
            let of_prompts = [vec![true, false], vec![false, true]];
            let made = HunyuanEmbeds::of_images([&embeds_blc; 2], of_prompts, images).unwrap();
            for embeds in &made.embeds {
                assert_eq!(embeds.to_vec_blocking::<f32>().unwrap(), [1., 1., 2., 2.]);
            }
            assert_eq!(made.masks, masks.map(|mask| mask.to_vec()));
        }
        let rows = [true, true, false, true];
        assert_eq!(
            in_turn(&rows, 2, 2),
            [true, true, true, true, false, true, false, true]
        );
    }
}
