//! The two kinds of Flux blocks (diffusers `models/transformers/transformer_flux.py`).
//!
//! Shapes: b images, l tokens, h heads, d head dim, c = h · d channels. In joint sequences, text comes before the image.

use xdit_kernels::activation::Activation;
use xdit_kernels::attention::Attention;
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::norm::layer_norm_modulate;
use xdit_kernels::rope::HeadNorm;
use xdit_kernels::{Tensor, View};

use super::{FluxConfig, RotaryTables};
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{EPS, Joint, Packing, byte_len, chunk, linear};

/// Width of the feed-forward layers, as a multiple of the width of the residual stream.
pub(crate) const MLP_RATIO: usize = 4;

/// `FluxTransformerBlock`: text and image keep weights of their own and meet in attention.
#[derive(Debug)]
pub(crate) struct DoubleBlock {
    image: StreamWeights,
    text: StreamWeights,
    heads: usize,
}

/// The weights of one of the two token streams of a double block.
#[derive(Debug)]
struct StreamWeights {
    modulation: Linear,
    qkv: Linear,
    norm_q: Tensor,
    norm_k: Tensor,
    out: Linear,
    ff_in: Linear,
    ff_out: Linear,
}

impl StreamWeights {
    /// `names`: norm, q, k, v, norm of q, norm of k, output, feed-forward.
    fn load(
        scope: &Scope<'_>,
        config: &FluxConfig,
        names: [&str; 8],
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let [norm, q, k, v, norm_q, norm_k, out, ff] = names;
        let (c, d) = (config.hidden_size(), config.attention_head_dim);
        let (attn, ff) = (scope.child("attn"), scope.child(ff).child("net"));
        Ok(Self {
            modulation: packing.linear(&scope.child(norm).child("linear"), [6 * c, c], true)?,
            qkv: packing.fused(&[q, k, v].map(|name| (attn.child(name), c)), c, true)?,
            norm_q: packing.vector(&attn.child(norm_q), "weight", d)?,
            norm_k: packing.vector(&attn.child(norm_k), "weight", d)?,
            out: packing.linear(&attn.child(out), [c, c], true)?,
            ff_in: packing.linear(&ff.child("0.proj"), [MLP_RATIO * c, c], true)?,
            ff_out: packing.linear(&ff.child("2"), [c, MLP_RATIO * c], true)?,
        })
    }

    fn byte_len(&self) -> usize {
        let linears = [
            &self.modulation,
            &self.qkv,
            &self.out,
            &self.ff_in,
            &self.ff_out,
        ];
        byte_len(&linears, &[&self.norm_q, &self.norm_k])
    }

    /// Writes queries, keys and values of this stream to the next rows of `joint`.
    fn project(
        &self,
        x_blc: &Tensor,
        modulation: &Tensor,
        rope: &RotaryTables,
        joint: &mut Joint,
        attention: &mut dyn Attention,
    ) -> Result<()> {
        let c = x_blc.dim(2);
        let normed = layer_norm_modulate(
            x_blc,
            chunk(modulation, 0, c)?,
            chunk(modulation, 1, c)?,
            EPS,
        )?;
        let qkv_blc = linear(&self.qkv, &[normed.view()], Epilogue::None, attention)?;
        drop(normed);
        let rope = rope.rows(joint.filled(), qkv_blc.dim(1))?;
        joint.fill(
            &qkv_blc,
            Some([&self.norm_q, &self.norm_k].map(|norm| HeadNorm::Rms(norm.view()))),
            Some(rope),
        )
    }

    /// Returns the stream after attention, whose output for it is `attn_blc`, and the feed-forward layers.
    fn finish(
        &self,
        x_blc: &Tensor,
        modulation: &Tensor,
        attn_blc: View<'_>,
        attention: &mut dyn Attention,
    ) -> Result<Tensor> {
        let c = x_blc.dim(2);
        let gate = |index, residual| -> Result<_> {
            Ok(Epilogue::GateResidual {
                gate: chunk(modulation, index, c)?,
                residual,
            })
        };
        let hidden = linear(&self.out, &[attn_blc], gate(2, x_blc.view())?, attention)?;
        let normed = layer_norm_modulate(
            &hidden,
            chunk(modulation, 3, c)?,
            chunk(modulation, 4, c)?,
            EPS,
        )?;
        let gelu = Epilogue::Activation(Activation::GeluTanh);
        let inner = linear(&self.ff_in, &[normed.view()], gelu, attention)?;
        drop(normed);
        let gated = gate(5, hidden.view())?;
        linear(&self.ff_out, &[inner.view()], gated, attention)
    }
}

impl DoubleBlock {
    pub(crate) fn load(
        scope: &Scope<'_>,
        config: &FluxConfig,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let image = [
            "norm1", "to_q", "to_k", "to_v", "norm_q", "norm_k", "to_out.0", "ff",
        ];
        let text = [
            "norm1_context",
            "add_q_proj",
            "add_k_proj",
            "add_v_proj",
            "norm_added_q",
            "norm_added_k",
            "to_add_out",
            "ff_context",
        ];
        Ok(Self {
            image: StreamWeights::load(scope, config, image, packing)?,
            text: StreamWeights::load(scope, config, text, packing)?,
            heads: config.num_attention_heads,
        })
    }

    /// Returns shift, scale and gate of attention and of the feed-forward layers, for image and text: two `[b, 6c]`.
    pub(crate) fn modulation(&self, silu_temb_bc: &Tensor) -> Result<[Tensor; 2]> {
        Ok([
            self.image.modulation.forward(silu_temb_bc)?,
            self.text.modulation.forward(silu_temb_bc)?,
        ])
    }

    /// Returns the image and text streams after the block. Without text, attention uses its kept keys and values.
    pub(crate) fn forward(
        &self,
        image_blc: &Tensor,
        text_blc: Option<&Tensor>,
        modulation: &[Tensor; 2],
        rope: &RotaryTables,
        attention: &mut dyn Attention,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let text_len = text_blc.map_or(0, |text| text.dim(1));
        let image_len = image_blc.dim(1);
        let mut joint = Joint::new(image_blc, text_len + image_len, self.heads)?;
        if let Some(text_blc) = text_blc {
            self.text
                .project(text_blc, &modulation[1], rope, &mut joint, attention)?;
        }
        self.image
            .project(image_blc, &modulation[0], rope, &mut joint, attention)?;
        let attn_blc = joint.attend(attention, rope.segments())?;
        let text = match text_blc {
            None => None,
            Some(text_blc) => {
                let attn_blc = attn_blc.view().narrow(1, 0, text_len)?;
                let text = &self.text;
                Some(text.finish(text_blc, &modulation[1], attn_blc, attention)?)
            }
        };
        let image = self.image.finish(
            image_blc,
            &modulation[0],
            attn_blc.view().narrow(1, text_len, image_len)?,
            attention,
        )?;
        Ok((image, text))
    }

    /// Returns the bytes of the weights.
    pub(crate) fn byte_len(&self) -> usize {
        self.image.byte_len() + self.text.byte_len()
    }
}

/// `FluxSingleTransformerBlock`: one joint stream, attention and feed-forward side by side.
#[derive(Debug)]
pub(crate) struct SingleBlock {
    modulation: Linear,
    qkv: Linear,
    norm_q: Tensor,
    norm_k: Tensor,
    mlp: Linear,
    out: Linear,
    heads: usize,
}

impl SingleBlock {
    pub(crate) fn load(
        scope: &Scope<'_>,
        config: &FluxConfig,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (c, d) = (config.hidden_size(), config.attention_head_dim);
        let attn = scope.child("attn");
        Ok(Self {
            modulation: packing.linear(&scope.child("norm").child("linear"), [3 * c, c], true)?,
            qkv: packing.fused(
                &["to_q", "to_k", "to_v"].map(|name| (attn.child(name), c)),
                c,
                true,
            )?,
            norm_q: packing.vector(&attn.child("norm_q"), "weight", d)?,
            norm_k: packing.vector(&attn.child("norm_k"), "weight", d)?,
            mlp: packing.linear(&scope.child("proj_mlp"), [MLP_RATIO * c, c], true)?,
            out: packing.linear(&scope.child("proj_out"), [c, (1 + MLP_RATIO) * c], true)?,
            heads: config.num_attention_heads,
        })
    }

    /// Returns the bytes of the weights.
    pub(crate) fn byte_len(&self) -> usize {
        let linears = [&self.modulation, &self.qkv, &self.mlp, &self.out];
        byte_len(&linears, &[&self.norm_q, &self.norm_k])
    }

    /// Returns shift, scale and gate: `[b, 3c]`.
    pub(crate) fn modulation(&self, silu_temb_bc: &Tensor) -> Result<Tensor> {
        Ok(self.modulation.forward(silu_temb_bc)?)
    }

    /// Returns the joint stream, text first, after the block.
    pub(crate) fn forward(
        &self,
        x_blc: &Tensor,
        modulation: &Tensor,
        rope: &RotaryTables,
        attention: &mut dyn Attention,
    ) -> Result<Tensor> {
        let (length, c) = (x_blc.dim(1), x_blc.dim(2));
        let normed = layer_norm_modulate(
            x_blc,
            chunk(modulation, 0, c)?,
            chunk(modulation, 1, c)?,
            EPS,
        )?;
        let mut joint = Joint::new(x_blc, length, self.heads)?;
        joint.fill(
            &linear(&self.qkv, &[normed.view()], Epilogue::None, attention)?,
            Some([&self.norm_q, &self.norm_k].map(|norm| HeadNorm::Rms(norm.view()))),
            Some(rope.rows(0, length)?),
        )?;
        let attn_blc = joint.attend(attention, rope.segments())?;
        let gelu = Epilogue::Activation(Activation::GeluTanh);
        let mlp_blc = linear(&self.mlp, &[normed.view()], gelu, attention)?;
        drop(normed);
        let gate = Epilogue::GateResidual {
            gate: chunk(modulation, 2, c)?,
            residual: x_blc.view(),
        };
        let both = [attn_blc.view(), mlp_blc.view()];
        linear(&self.out, &both, gate, attention)
    }
}
