//! Runs some blocks alone, without the ends of the transformer.

use xdit_kernels::Tensor;
use xdit_kernels::attention::Attention;

use super::transformer::expect;
use super::{HunyuanPositions, HunyuanText, HunyuanTransformer};
use crate::error::Result;
use crate::models::dit::{Conditioning, Dit};
use crate::models::skips::Skips;
use crate::quote;

/// The values that the blocks of a transformer keep of a prompt for all steps of an image, mainly keys and values of their
/// cross-attention. Clones share them.
#[derive(Clone, Debug)]
pub struct HunyuanContext(crate::models::hunyuandit::forward::Context);

impl HunyuanTransformer {
    /// Computes the values that the blocks of this value keep of these prompts.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if the width of the text is not that of the model.
    pub fn read_text(&self, text: &HunyuanText) -> Result<HunyuanContext> {
        Ok(HunyuanContext(self.context(&self.held, text, &mut ())?))
    }

    /// Runs the blocks of this value on the stream `[b, l, c]`, one after another, and skips blocks that it does not contain.
    /// `timestep` is one per image, from 1000 down; `attention` has one entry for each block's self-attention.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit each other or the configuration, or if a block reads
    /// the output of a missing block.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{DType, Device, Tensor};
    /// use xdit_models::{Blocks, ConfigFile};
    /// use xdit_models::hunyuandit::{HunyuanConfig, HunyuanPositions, HunyuanTransformer};
    /// use xdit_models::layers::Packing;
    /// use xdit_models::weights::{Scope, ZeroWeights};
    ///
    /// let config = br#"{"attention_head_dim": 8, "num_attention_heads": 2, "hidden_size": 16, "num_layers": 4,
    ///     "in_channels": 4, "patch_size": 2, "cross_attention_dim": 8, "cross_attention_dim_t5": 16,
    ///     "pooled_projection_dim": 4, "text_len": 3, "text_len_t5": 5}"#;
    /// let config = HunyuanConfig::read(&ConfigFile::parse("config.json", config)?)?;
    /// let (weights, held) = (ZeroWeights::new(DType::F32), Blocks::new([0..1, 3..4]));
    /// let packing = &mut Packing::new(DType::F32, Device::cpu());
    /// let model = HunyuanTransformer::load_blocks(&config, &held, &Scope::root(&weights), packing)?;
    ///
    /// let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::cpu());
    /// let masks = [&[true; 3][..], &[true; 5]];
    /// let text = model.embed_text([&zeros(&[1, 3, 8])?, &zeros(&[1, 5, 16])?], masks, &[0.0; 6], &mut ())?;
    /// // Once per image; then in every step:
    /// let context = model.read_text(&text)?;
    /// let positions = HunyuanPositions::new(&config, 2, 2, &Device::cpu())?;
    /// let stream = model.run_held(&zeros(&[1, 4, 16])?, &[999.0], &context, &positions, &mut model.attention())?;
    /// assert_eq!(stream.shape(), [1, 4, 16]);
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn run_held(
        &self,
        stream_blc: &Tensor,
        timestep: &[f32],
        context: &HunyuanContext,
        positions: &HunyuanPositions,
        attention: &mut [Box<dyn Attention>],
    ) -> Result<Tensor> {
        let batch = timestep.len();
        let shape = [batch, positions.token_count(), self.config.hidden_size()];
        let fits = stream_blc.shape() == shape;
        expect(
            fits,
            format!("a stream {}", quote::list(&shape)),
            stream_blc,
        )?;
        let count = self.held.len();
        let fits = attention.len() == count;
        expect(fits, format!("{count} attentions"), &attention.len())?;
        let (mut stream_blc, mut rest) = (stream_blc.clone(), attention);
        let mut skips = Skips::default();
        for range in self.held.ranges() {
            let modulation = self.modulate(range.clone(), timestep, &context.0, &mut ())?;
            let (own, others) = rest.split_at_mut(range.len());
            let conditioning = Conditioning {
                modulation: &modulation,
                places: positions,
            };
            let blocks = range.clone();
            stream_blc =
                self.run_blocks(blocks, stream_blc, conditioning, own, &mut skips, &mut ())?;
            rest = others;
        }
        Ok(stream_blc)
    }
}
