//! BERT's encoder (transformers `models/bert/modeling_bert.py`, `BertModel`), without its pooler.
//!
//! Shapes: b prompts, l tokens, c channels.

use xdit_kernels::attention::Mask;
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{DType, Tensor, View, elementwise};

use super::{BertConfig, check_ids, key_mask};
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::activation::ActivationKind;
use crate::layers::rows_of;
use crate::layers::{LayerNorm, Packing, attend};
use crate::observer::Observer;

/// A BERT encoder. HunyuanDiT calls it its bilingual CLIP.
///
/// # Examples
/// ```
/// use xdit_kernels::{View, DType, Device};
/// use xdit_models::ConfigFile;
/// use xdit_models::layers::Packing;
/// use xdit_models::text::{BertConfig, BertEncoder};
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16,
///     "num_hidden_layers": 1, "max_position_embeddings": 4}"#;
/// let config = BertConfig::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let model = BertEncoder::load(&config, &Scope::root(&weights), packing)?;
/// // The last token is padding, which no other token sees.
/// let hidden_blc = model.forward(&[vec![2, 5, 3, 0]], Some(&[true, true, true, false]), &mut ())?;
/// assert_eq!(hidden_blc.shape(), [1, 4, 8]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct BertEncoder {
    config: BertConfig,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    embeddings_norm: LayerNorm,
    layers: Vec<BertLayer>,
    dtype: DType,
}

/// A layer whose norms follow its residual sums.
#[derive(Debug)]
struct BertLayer {
    qkv: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    hidden_act: ActivationKind,
}

impl BertEncoder {
    /// Loads the encoder of this configuration. Finds names with and without the prefix `bert.`. Does not read the pooler.
    ///
    /// # Errors
    /// [`Error::BadTensor`](crate::Error::BadTensor) for a tensor that is missing or wrong.
    pub fn load(
        config: &BertConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let root = match weights.contains("embeddings.word_embeddings.weight") {
            true => weights.clone(),
            false => weights.child_if_present("bert"),
        };
        let width = config.hidden_size;
        let embeddings = root.child("embeddings");
        let table = |name: &str, rows: usize, packing: &mut Packing<'_>| {
            packing.table(&embeddings.child(name), "weight", &[rows, width])
        };
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                BertLayer::load(
                    config,
                    &root.child("encoder").child("layer").child(i),
                    packing,
                )
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size, packing)?,
            position_embeddings: table(
                "position_embeddings",
                config.max_position_embeddings,
                packing,
            )?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size, packing)?,
            embeddings_norm: norm(config, &embeddings, packing)?,
            layers,
            dtype: packing.dtype(),
            config: config.clone(),
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Returns the encoded prompts, `[b, l, c]`. `observer` receives `bert.hidden_states.I`, and the last of them as
    /// `bert.last_hidden_state`.
    ///
    /// # Shapes
    /// Each row of `ids` is one prompt. All have the same length, at most `max_position_embeddings`. `mask`, `[b, l]`
    /// row-major, marks the tokens that others attend to. Without it, others attend to all tokens.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) for rows of other lengths, ids outside the vocabulary and a mask of another size.
    pub fn forward(
        &self,
        ids: &[Vec<u32>],
        mask: Option<&[bool]>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let _span = tracing::info_span!("bert", prompts = ids.len()).entered();
        let length = check_ids(ids, Some(self.config.max_position_embeddings))?;
        let mut hidden_blc = self.embed(ids, length)?;
        let mask_bl = key_mask(mask, [ids.len(), length], hidden_blc.device())?;
        let mask = mask_bl.as_ref().map(Tensor::view);
        observer.offer("bert.hidden_states.0", &hidden_blc)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let _span = tracing::debug_span!("block", i).entered();
            hidden_blc = layer.forward(&hidden_blc, self.config.num_attention_heads, mask)?;
            observer.offer(&format!("bert.hidden_states.{}", i + 1), &hidden_blc)?;
        }
        observer.offer("bert.last_hidden_state", &hidden_blc)?;
        Ok(hidden_blc)
    }

    /// Tokens, their type 0 and positions, in transformers' order, then the norm.
    fn embed(&self, ids: &[Vec<u32>], length: usize) -> Result<Tensor> {
        let rows = |table: &Tensor, ids: &[u32]| -> Result<Tensor> {
            Ok(rows_of(table, ids)?.to_dtype(DType::F32)?)
        };
        let positions: Vec<u32> = (0..ids.len()).flat_map(|_| 0..length as u32).collect();
        let ids_flat = ids.concat();
        let words = rows(&self.word_embeddings, &ids_flat)?;
        let types = rows(&self.token_type_embeddings, &vec![0; ids_flat.len()])?;
        let positions = rows(&self.position_embeddings, &positions)?;
        let sum = elementwise::add(&elementwise::add(&words, &types)?, &positions)?;
        let hidden = self.embeddings_norm.forward(&sum.to_dtype(self.dtype)?)?;
        Ok(hidden.reshape([ids.len(), length, self.config.hidden_size])?)
    }
}

/// The module `LayerNorm` of `scope`.
fn norm(config: &BertConfig, scope: &Scope<'_>, packing: &mut Packing<'_>) -> Result<LayerNorm> {
    let (width, eps) = (config.hidden_size, config.layer_norm_eps);
    LayerNorm::load(&scope.child("LayerNorm"), width, eps, packing)
}

impl BertLayer {
    fn load(config: &BertConfig, layer: &Scope<'_>, packing: &mut Packing<'_>) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let attention = layer.child("attention");
        let (output, attention_output) = (layer.child("output"), attention.child("output"));
        let projections =
            ["query", "key", "value"].map(|name| (attention.child("self").child(name), width));
        let dense = |scope: &Scope<'_>, shape, packing: &mut Packing<'_>| {
            packing.linear(&scope.child("dense"), shape, true)
        };
        Ok(Self {
            qkv: packing.fused(&projections, width, true)?,
            attention_output: dense(&attention_output, [width, width], packing)?,
            attention_norm: norm(config, &attention_output, packing)?,
            intermediate: dense(&layer.child("intermediate"), [inner, width], packing)?,
            output: dense(&output, [width, inner], packing)?,
            output_norm: norm(config, &output, packing)?,
            hidden_act: config.hidden_act,
        })
    }

    fn forward(&self, x_blc: &Tensor, heads: usize, mask: Option<View<'_>>) -> Result<Tensor> {
        let qkv_blc = self.qkv.forward(x_blc)?;
        let mask = Mask::default().with_key_mask(mask);
        let attention = attend(&qkv_blc, heads, None, mask)?;
        let residual = Epilogue::Residual(x_blc.view());
        let sum = self
            .attention_output
            .forward_with(&[attention.view()], residual)?;
        let hidden = self.attention_norm.forward(&sum)?;
        let act = Epilogue::Activation(self.hidden_act.into());
        let inner = self.intermediate.forward_with(&[hidden.view()], act)?;
        let residual = Epilogue::Residual(hidden.view());
        let sum = self.output.forward_with(&[inner.view()], residual)?;
        self.output_norm.forward(&sum)
    }
}

#[cfg(test)]
mod tests {
    use xdit_kernels::Device;

    use super::*;
    use crate::error::Error;
    use crate::files::config::ConfigFile;
    use crate::files::weights::WeightSource;
    use crate::text::test_weights::TestWeights;

    fn encoder(weights: &dyn WeightSource) -> BertEncoder {
        let json = br#"{"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12,
            "num_hidden_layers": 2, "max_position_embeddings": 6}"#;
        let config = BertConfig::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        let packing = &mut Packing::new(DType::F32, Device::cpu());
        BertEncoder::load(&config, &Scope::root(weights), packing).unwrap()
    }

    #[test]
    fn names_come_with_and_without_a_prefix() {
        let outputs = [TestWeights(""), TestWeights("bert.")].map(|weights| {
            let output = encoder(&weights).forward(&[vec![2, 5, 3]], None, &mut ());
            output.unwrap().to_vec_blocking::<f32>().unwrap()
        });
        assert_eq!(outputs[0], outputs[1]);
    }

    #[test]
    fn text_does_not_see_padding() {
        let encoder = encoder(&TestWeights(""));
        let mask = [true, true, true, false, false];
        let run = |row: [u32; 5], mask| {
            let output = encoder.forward(&[row.to_vec()], mask, &mut ());
            output.unwrap().to_vec_blocking::<f32>().unwrap()[..3 * 8].to_vec()
        };
        let (padded, other) = ([2, 5, 3, 0, 0], [2, 5, 3, 7, 8]);
        assert_eq!(run(padded, Some(&mask)), run(other, Some(&mask)));
        assert_ne!(run(padded, None), run(other, None));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let encoder = encoder(&TestWeights(""));
        let run = |ids: &[Vec<u32>], mask| encoder.forward(ids, mask, &mut ()).unwrap_err();
        let row = |len| vec![vec![1; len]];
        assert!(matches!(run(&row(7), None), Error::Kernel(_)), "positions");
        assert!(matches!(run(&[vec![9]], None), Error::Kernel(_)), "ids");
        assert!(
            matches!(run(&row(3), Some(&[true; 2])), Error::Kernel(_)),
            "mask"
        );
    }
}
