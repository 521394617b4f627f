//! The encoder of T5 and mT5 (transformers `models/t5/modeling_t5.py`, `T5EncoderModel`).
//!
//! The residual stream of published weights exceeds the largest f16 number. For f16, transformers keeps the last layer of each
//! feed-forward in f32 (`_keep_in_fp32_modules`), so the stream is f32 from there on, and clamps the stream before. Here the
//! stream, the feed-forward's width and that layer are always f32, so nothing needs to be clamped.
//!
//! Shapes: b prompts, l tokens, h heads, c channels.

use xdit_kernels::activation::Activation;
use xdit_kernels::attention::Mask;
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{DType, Tensor, TensorMut, View, embedding::embedding, layout, norm};

use super::{T5Config, check_ids, key_mask};
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{Packing, attend, rows_of};
use crate::observer::Observer;

/// A T5 encoder.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device};
/// use xdit_models::ConfigFile;
/// use xdit_models::layers::Packing;
/// use xdit_models::text::{T5Config, T5Encoder};
/// use xdit_models::weights::{Scope, ZeroWeights};
///
/// let config = br#"{"vocab_size": 9, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 1,
///     "feed_forward_proj": "gated-gelu"}"#;
/// let config = T5Config::read(&ConfigFile::parse("config.json", config)?)?;
/// let weights = ZeroWeights::new(DType::F32);
/// let packing = &mut Packing::new(DType::F32, Device::cpu());
/// let model = T5Encoder::load(&config, &Scope::root(&weights), packing)?;
/// let hidden_blc = model.forward(&[vec![3, 4, 1, 0]], None, &mut ())?;
/// assert_eq!(hidden_blc.shape(), [1, 4, 8]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct T5Encoder {
    config: T5Config,
    embed_tokens: Tensor,
    /// `[buckets, h]`, f32.
    relative_attention_bias: Tensor,
    blocks: Vec<T5Block>,
    final_layer_norm: Tensor,
    dtype: DType,
}

#[derive(Debug)]
struct T5Block {
    attention_norm: Tensor,
    qkv: Linear,
    o: Linear,
    ff_norm: Tensor,
    /// The projection before the activation.
    wi: Linear,
    /// The projection by which the activation is multiplied, in gated models.
    wi_1: Option<Linear>,
    wo: Linear,
}

impl T5Encoder {
    /// Loads the encoder of this configuration.
    ///
    /// # Errors
    /// [`Error::BadTensor`](crate::Error::BadTensor) for a tensor that is missing or wrong.
    pub fn load(config: &T5Config, weights: &Scope<'_>, packing: &mut Packing<'_>) -> Result<Self> {
        let encoder = weights.child("encoder");
        let (width, inner) = (config.d_model, config.inner_dim());
        let blocks = (0..config.num_layers)
            .map(|i| {
                let layers = encoder.child("block").child(i).child("layer");
                let (attention, ff) = (layers.child(0), layers.child(1));
                let projections = attention.child("SelfAttention");
                let dense = ff.child("DenseReluDense");
                let (wi, wi_1) = if config.is_gated_act {
                    ("wi_0", Some("wi_1"))
                } else {
                    ("wi", None)
                };
                let shape = [config.d_ff, width];
                Ok(T5Block {
                    attention_norm: packing.vector(
                        &attention.child("layer_norm"),
                        "weight",
                        width,
                    )?,
                    qkv: packing.fused(
                        &["q", "k", "v"].map(|name| (projections.child(name), inner)),
                        width,
                        false,
                    )?,
                    o: packing.linear(&projections.child("o"), [width, inner], false)?,
                    ff_norm: packing.vector(&ff.child("layer_norm"), "weight", width)?,
                    wi: packing.linear(&dense.child(wi), shape, false)?,
                    wi_1: wi_1
                        .map(|name| packing.linear(&dense.child(name), shape, false))
                        .transpose()?,
                    wo: packing.linear_as(
                        &dense.child("wo"),
                        [width, config.d_ff],
                        stream_dtype(packing.dtype()),
                    )?,
                })
            })
            .collect::<Result<_>>()?;
        let first = encoder
            .child("block")
            .child(0)
            .child("layer")
            .child(0)
            .child("SelfAttention");
        let buckets = [config.relative_attention_num_buckets, config.num_heads];
        // Checkpoints contain the tied embedding under one of two names. If both exist and differ, transformers ties nothing,
        // for any `tie_word_embeddings`, and the encoder reads its own.
        let own = encoder.child("embed_tokens");
        let embeddings = if own.contains("weight") {
            own
        } else {
            weights.child("shared")
        };
        Ok(Self {
            embed_tokens: packing.table(&embeddings, "weight", &[config.vocab_size, width])?,
            relative_attention_bias: packing.small(
                &first.child("relative_attention_bias"),
                "weight",
                &buckets,
            )?,
            blocks,
            final_layer_norm: packing.vector(
                &encoder.child("final_layer_norm"),
                "weight",
                width,
            )?,
            dtype: packing.dtype(),
            config: config.clone(),
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Returns the encoded prompts, `[b, l, c]`. `observer` receives `t5.hidden_states.I` and `t5.last_hidden_state`.
    ///
    /// # Shapes
    /// Each row of `ids` is one prompt. All have the same length. `mask`, `[b, l]` row-major, marks the tokens that others
    /// attend to. Without it, others attend to all tokens, including padding, as in Flux.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) for rows of other lengths and ids outside the vocabulary.
    pub fn forward(
        &self,
        ids: &[Vec<u32>],
        mask: Option<&[bool]>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let _span = tracing::info_span!("t5", prompts = ids.len()).entered();
        let length = check_ids(ids, None)?;
        let bias_1hll = self.position_bias(length)?;
        let hidden =
            rows_of(&self.embed_tokens, &ids.concat())?.to_dtype(stream_dtype(self.dtype))?;
        let mut hidden_blc = hidden.reshape([ids.len(), length, self.config.d_model])?;
        let mask_bl = key_mask(mask, [ids.len(), length], hidden_blc.device())?;
        let mask = mask_bl.as_ref().map(Tensor::view);
        observer.offer("t5.hidden_states.0", &hidden_blc)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let _span = tracing::debug_span!("block", i).entered();
            let settings = (&self.config, self.dtype);
            hidden_blc = block.forward(&hidden_blc, bias_1hll.view(), mask, settings)?;
            observer.offer(&format!("t5.hidden_states.{}", i + 1), &hidden_blc)?;
        }
        let hidden_blc = norm::rms_norm(
            &hidden_blc,
            Some(self.final_layer_norm.view()),
            self.config.layer_norm_epsilon,
        )?
        .to_dtype(self.dtype)?;
        observer.offer("t5.last_hidden_state", &hidden_blc)?;
        Ok(hidden_blc)
    }

    /// Returns the bias of each pair of positions and each head: `[1, h, l, l]`, f32.
    fn position_bias(&self, length: usize) -> Result<Tensor> {
        let (heads, config) = (self.config.num_heads, &self.config);
        let table = self.relative_attention_bias.to_dtype(DType::F32)?;
        // One value for each head and each distance from -(l-1) to l-1. A row of the bias is a window of these.
        let span = 2 * length - 1;
        let bucket = |i: usize| {
            let distance = i as i64 - (length as i64 - 1);
            let buckets = config.relative_attention_num_buckets;
            bucket(distance, buckets, config.relative_attention_max_distance) as u32
        };
        let buckets: Vec<u32> = (0..span).map(bucket).collect();
        let buckets = Tensor::from_slice(&buckets, [span], table.device())?;
        let values_sh = embedding(&table, &buckets)?;
        let values_hs = layout::contiguous(values_sh.view().transpose(0, 1)?)?;
        let values = values_hs.view().reshape([heads, 1, span])?;
        let windows = (0..length).map(|query| values.narrow(2, length - 1 - query, length));
        let bias = Tensor::cat(&windows.collect::<Result<Vec<_>, _>>()?, 1)?;
        Ok(bias.reshape([1, heads, length, length])?)
    }
}

impl T5Block {
    /// Returns the stream after the block, in its dtype. All layers except the last compute in `dtype`.
    fn forward(
        &self,
        x_blc: &Tensor,
        bias_1hll: View<'_>,
        mask: Option<View<'_>>,
        (config, dtype): (&T5Config, DType),
    ) -> Result<Tensor> {
        let (eps, wide) = (config.layer_norm_epsilon, x_blc.dtype());
        let norm = |x_blc: &Tensor, weight: &Tensor| {
            norm::rms_norm(x_blc, Some(weight.view()), eps)?.to_dtype(dtype)
        };
        let qkv_blc = self.qkv.forward(&norm(x_blc, &self.attention_norm)?)?;
        let mask = Mask::default()
            .with_key_mask(mask)
            .with_bias(Some(bias_1hll));
        // T5 does not scale by the head width. Its weights include the scale.
        let attention = attend(&qkv_blc, config.num_heads, Some(1.0), mask)?;
        let residual = Epilogue::Residual(x_blc.view());
        let hidden = forward_as(&self.o, &attention, residual, wide)?;
        let normed = norm(&hidden, &self.ff_norm)?;
        let act = Epilogue::Activation(Activation::from(config.dense_act));
        let mut inner = forward_as(&self.wi, &normed, act, wide)?;
        if let Some(wi_1) = &self.wi_1 {
            inner = forward_as(wi_1, &normed, Epilogue::Mul(inner.view()), wide)?;
        }
        let residual = Epilogue::Residual(hidden.view());
        Ok(self.wo.forward_with(&[inner.view()], residual)?)
    }
}

/// Returns the dtype of the residual stream if the other layers compute in `dtype`.
fn stream_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F16 => DType::F32,
        other => other,
    }
}

/// Returns a layer's output in `dtype`, for an input of any dtype.
fn forward_as(
    layer: &Linear,
    x_blc: &Tensor,
    epilogue: Epilogue<'_>,
    dtype: DType,
) -> Result<Tensor> {
    if x_blc.dtype() == dtype {
        return Ok(layer.forward_with(&[x_blc.view()], epilogue)?);
    }
    let shape = [x_blc.dim(0), x_blc.dim(1), layer.out_features()];
    let mut out = TensorMut::unfilled(shape, dtype, x_blc.device())?;
    layer.forward_into(&[x_blc.view()], epilogue, out.part(&[])?)?;
    Ok(out.freeze()?)
}

/// Returns the row of the bias table for a key `distance` positions after the query. Half of the rows are for each direction.
/// Of these, half are for one distance each, and the others for logarithmic ranges up to `max_distance`
/// (`_relative_position_bucket`; in f32, as there).
fn bucket(distance: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let exact = half / 2;
    let direction = if distance > 0 { half } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    if distance < exact {
        return direction + distance;
    }
    let ratio =
        (distance as f32 / exact as f32).ln() / ((max_distance as f64 / exact as f64).ln() as f32);
    let logarithmic = exact + (ratio * (half - exact) as f32) as usize;
    direction + logarithmic.min(half - 1)
}

#[cfg(test)]
mod tests {
    use xdit_kernels::Device;

    use super::*;
    use crate::files::config::ConfigFile;
    use crate::files::weights::WeightSource;
    use crate::text::test_weights::TestWeights;

    #[test]
    fn buckets_as_in_transformers() {
        // T5Attention._relative_position_bucket(torch.tensor(DISTANCES), True, 32, 128)
        let expected = [
            (-1000, 15),
            (-128, 15),
            (-91, 15),
            (-90, 14),
            (-64, 14),
            (-46, 13),
            (-45, 12),
            (-16, 10),
            (-11, 8),
            (-8, 8),
            (-7, 7),
            (-1, 1),
            (0, 0),
            (1, 17),
            (7, 23),
            (8, 24),
            (12, 25),
            (16, 26),
            (64, 30),
            (400, 31),
        ];
        for (distance, bucket_expected) in expected {
            assert_eq!(
                bucket(distance, 32, 128),
                bucket_expected,
                "distance {distance}"
            );
        }
    }

    /// Weights without this tensor.
    struct Without(&'static str);

    impl WeightSource for Without {
        fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
            assert_ne!(name, self.0);
            TestWeights("").tensor(name, shape)
        }

        fn contains(&self, name: &str) -> bool {
            name != self.0
        }

        fn contains_prefix(&self, _: &str) -> bool {
            true
        }

        fn release(&self, _: &str) {}
    }

    #[test]
    fn the_encoders_own_embedding_comes_before_the_shared_one() {
        // transformers 5.23: with both and different values the encoder computes with its own, whatever
        // `tie_word_embeddings` is; with one of them, with that.
        let json = br#"{"vocab_size": 9, "d_model": 8, "d_kv": 3, "d_ff": 8, "num_heads": 2, "num_layers": 1}"#;
        let config = T5Config::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        let table = |missing| {
            let packing = &mut Packing::new(DType::F32, Device::cpu());
            let weights = Without(missing);
            let encoder = T5Encoder::load(&config, &Scope::root(&weights), packing).unwrap();
            encoder.embed_tokens.to_vec_blocking::<f32>().unwrap()
        };
        let [own, shared] = ["encoder.embed_tokens.weight", "shared.weight"];
        let values = |name| {
            TestWeights("")
                .tensor(name, &[9, 8])
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap()
        };
        assert_eq!(table("neither"), values(own));
        assert_eq!(table(shared), values(own));
        assert_eq!(table(own), values(shared));
    }

    #[test]
    fn a_mask_hides_padding_and_nothing_else() {
        let json = br#"{"vocab_size": 9, "d_model": 8, "d_kv": 3, "d_ff": 8, "num_heads": 2, "num_layers": 2}"#;
        let config = T5Config::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        let packing = &mut Packing::new(DType::F32, Device::cpu());
        let encoder = T5Encoder::load(&config, &Scope::root(&TestWeights("")), packing).unwrap();
        let run = |row: [u32; 4], mask: Option<&[bool]>| {
            let output = encoder.forward(&[row.to_vec()], mask, &mut ()).unwrap();
            output.to_vec_blocking::<f32>().unwrap()[..2 * 8].to_vec()
        };
        let (padded, other) = ([3, 1, 0, 0], [3, 1, 5, 7]);
        assert_eq!(run(padded, None), run(padded, Some(&[true; 4])));
        let mask: &[bool] = &[true, true, false, false];
        assert_eq!(run(padded, Some(mask)), run(other, Some(mask)));
        assert_ne!(run(padded, None), run(other, None));
    }
}
