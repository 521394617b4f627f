//! CLIP's text encoder (transformers `models/clip/modeling_clip.py`, `CLIPTextModel`).
//!
//! Shapes: b prompts, l tokens, c channels.

use xdit_kernels::attention::Mask;
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{DType, Tensor, elementwise};

use super::{ClipTextConfig, check_ids};
use crate::error::{Error, Result};
use crate::files::weights::Scope;
use crate::layers::{LayerNorm, Packing, attend, rows_of};
use crate::observer::Observer;

/// A CLIP text encoder.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device};
/// use xdit_models::ConfigFile;
/// use xdit_models::layers::Packing;
/// use xdit_models::text::{ClipTextConfig, ClipTextModel};
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16,
///     "num_hidden_layers": 1, "max_position_embeddings": 4, "eos_token_id": 8}"#;
/// let config = ClipTextConfig::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let model = ClipTextModel::load(&config, &Scope::root(&weights), packing)?;
/// let output = model.forward(&[vec![0, 3, 8, 8]], &mut ())?;
/// assert_eq!(output.pooled.shape(), [1, 8]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct ClipTextModel {
    config: ClipTextConfig,
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    dtype: DType,
    name: &'static str,
}

#[derive(Debug)]
struct ClipLayer {
    layer_norm1: LayerNorm,
    qkv_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// The output of a CLIP text encoder for a batch of prompts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClipOutput {
    /// The hidden state before the last layer (or before skipped layers), without the final norm, which SD3 reads: `[b, l, c]`.
    pub prompt_embeds: Tensor,
    /// After the last layer and the final norm: `[b, l, c]`.
    pub last_hidden_state: Tensor,
    /// The last hidden state at the end of each prompt: `[b, c]`.
    pub pooled: Tensor,
    /// `pooled` through the text projection, for models that have one: `[b, projection_dim]`.
    pub text_embeds: Option<Tensor>,
}

impl ClipTextModel {
    /// Loads the encoder of this configuration. Finds names with and without the prefix `text_model.`.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a tensor that is missing or wrong.
    pub fn load(
        config: &ClipTextConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let root = weights.child_if_present("text_model");
        let embeddings = root.child("embeddings");
        let norm = |scope: &Scope<'_>, name: &str, packing: &mut Packing<'_>| {
            LayerNorm::load(&scope.child(name), width, config.layer_norm_eps, packing)
        };
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let layer = root.child("encoder").child("layers").child(i);
                let attention = layer.child("self_attn");
                let mlp = layer.child("mlp");
                let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| (attention.child(name), width));
                Ok(ClipLayer {
                    layer_norm1: norm(&layer, "layer_norm1", packing)?,
                    qkv_proj: packing.fused(&qkv, width, true)?,
                    out_proj: packing.linear(&attention.child("out_proj"), [width, width], true)?,
                    layer_norm2: norm(&layer, "layer_norm2", packing)?,
                    fc1: packing.linear(&mlp.child("fc1"), [inner, width], true)?,
                    fc2: packing.linear(&mlp.child("fc2"), [width, inner], true)?,
                })
            })
            .collect::<Result<_>>()?;
        let token = embeddings.child("token_embedding");
        let position = embeddings.child("position_embedding");
        Ok(Self {
            token_embedding: packing.table(&token, "weight", &[config.vocab_size, width])?,
            position_embedding: packing.table(
                &position,
                "weight",
                &[config.max_position_embeddings, width],
            )?,
            layers,
            final_layer_norm: norm(&root, "final_layer_norm", packing)?,
            text_projection: None,
            name: "clip",
            dtype: packing.dtype(),
            config: config.clone(),
        })
    }

    /// Like [`load`](Self::load), with the text projection (`CLIPTextModelWithProjection`).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_projection(
        config: &ClipTextConfig,
        weights: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let shape = [config.projection_dim, config.hidden_size];
        let projection = packing.linear(&weights.child("text_projection"), shape, false)?;
        Ok(Self {
            text_projection: Some(projection),
            ..Self::load(config, weights, packing)?
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Returns the encoder with the observed names `NAME.…` instead of `clip.…`, for the second encoder of a pipeline.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Returns the encoded prompts. `observer` receives `clip.hidden_states.I` and `clip.last_hidden_state`.
    ///
    /// # Shapes
    /// Each row of `ids` is one prompt. All have the same length, at most `max_position_embeddings`.
    ///
    /// # Errors
    /// [`Error::Kernel`] for rows of other lengths and ids outside the vocabulary.
    pub fn forward(&self, ids: &[Vec<u32>], observer: &mut dyn Observer) -> Result<ClipOutput> {
        self.forward_skipping(ids, 0, observer)
    }

    /// Like [`forward`](Self::forward), with [`prompt_embeds`](ClipOutput::prompt_embeds) from `clip_skip` layers earlier
    /// (diffusers takes `hidden_states[-(clip_skip + 2)]`).
    ///
    /// # Errors
    /// Also [`Error::InvalidRequest`] if there are fewer layers before the last.
    pub fn forward_skipping(
        &self,
        ids: &[Vec<u32>],
        clip_skip: usize,
        observer: &mut dyn Observer,
    ) -> Result<ClipOutput> {
        let name = self.name;
        let _span = tracing::info_span!("clip", name, prompts = ids.len()).entered();
        let before_last = self.layers.len() - 1;
        let Some(kept) = before_last.checked_sub(clip_skip) else {
            let allowed = format!("0 to {before_last}, the layers before the last");
            return Err(Error::invalid("clip_skip", clip_skip, allowed));
        };
        let length = check_ids(ids, Some(self.config.max_position_embeddings))?;
        let mut hidden_blc = self.embed(ids, length)?;
        let mut prompt_embeds = hidden_blc.clone();
        observer.offer(&format!("{name}.hidden_states.0"), &hidden_blc)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let _span = tracing::debug_span!("block", i).entered();
            if i == kept {
                prompt_embeds = hidden_blc.clone();
            }
            hidden_blc = layer.forward(&hidden_blc, &self.config)?;
            observer.offer(&format!("{name}.hidden_states.{}", i + 1), &hidden_blc)?;
        }
        let last_hidden_state = self.final_layer_norm.forward(&hidden_blc)?;
        observer.offer(&format!("{name}.last_hidden_state"), &last_hidden_state)?;
        let ends = ids
            .iter()
            .enumerate()
            .map(|(b, row)| {
                let end = pooled_position(row, self.config.eos_token_id);
                Ok(last_hidden_state.view().select(0, b)?.narrow(0, end, 1)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let pooled = Tensor::cat(&ends, 0)?;
        let text_embeds = self
            .text_projection
            .as_ref()
            .map(|p| p.forward(&pooled))
            .transpose()?;
        Ok(ClipOutput {
            prompt_embeds,
            last_hidden_state,
            pooled,
            text_embeds,
        })
    }

    fn embed(&self, ids: &[Vec<u32>], length: usize) -> Result<Tensor> {
        let positions: Vec<u32> = (0..ids.len()).flat_map(|_| 0..length as u32).collect();
        let tokens = rows_of(&self.token_embedding, &ids.concat())?.to_dtype(DType::F32)?;
        let positions = rows_of(&self.position_embedding, &positions)?.to_dtype(DType::F32)?;
        let hidden = elementwise::add(&tokens, &positions)?.to_dtype(self.dtype)?;
        Ok(hidden.reshape([ids.len(), length, self.config.hidden_size])?)
    }
}

impl ClipLayer {
    fn forward(&self, x_blc: &Tensor, config: &ClipTextConfig) -> Result<Tensor> {
        let normed = self.layer_norm1.forward(x_blc)?;
        let qkv_blc = self.qkv_proj.forward(&normed)?;
        let mask = Mask::default().with_causal(true);
        let attention = attend(&qkv_blc, config.num_attention_heads, None, mask)?;
        let hidden = self
            .out_proj
            .forward_with(&[attention.view()], Epilogue::Residual(x_blc.view()))?;
        let normed = self.layer_norm2.forward(&hidden)?;
        let inner = self.fc1.forward_with(
            &[normed.view()],
            Epilogue::Activation(config.hidden_act.into()),
        )?;
        Ok(self
            .fc2
            .forward_with(&[inner.view()], Epilogue::Residual(hidden.view()))?)
    }
}

/// Returns the end of a prompt: its first highest id if the configuration says 2 (which was wrong in old checkpoints),
/// otherwise the first end token. It is 0 if there is none, like argmax.
fn pooled_position(ids: &[u32], eos_token_id: usize) -> usize {
    let end = match eos_token_id {
        2 => ids.iter().copied().max().unwrap_or_default(),
        id => id as u32,
    };
    ids.iter().position(|id| *id == end).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_end_where_transformers_says() {
        assert_eq!(pooled_position(&[5, 9, 7, 9, 9], 2), 1);
        assert_eq!(pooled_position(&[5, 9, 7, 7, 7], 7), 2);
        assert_eq!(pooled_position(&[5, 9], 7), 0);
    }
}
