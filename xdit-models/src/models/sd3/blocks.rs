//! The blocks of SD3 (diffusers `models/attention.py`, `JointTransformerBlock`).
//!
//! Shapes: b images, l tokens, h heads, d head dim, c = h · d channels. In joint sequences, text comes before the image.

use xdit_kernels::activation::Activation;
use xdit_kernels::attention::Attention;
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::norm::layer_norm_modulate;
use xdit_kernels::rope::HeadNorm;
use xdit_kernels::{Tensor, View};

use super::{Sd3Config, Sd3Positions};
use crate::error::{Error, Result};
use crate::files::weights::Scope;
use crate::layers::{EPS, Joint, Packing, byte_len, chunk, linear};

/// Width of the feed-forward layers, as a multiple of the width of the residual stream.
pub(super) const MLP_RATIO: usize = 4;

/// The projection of a stream to queries, keys and values, and the RMS norms of queries and keys in models that have them.
#[derive(Debug)]
struct Qkv {
    linear: Linear,
    norms: Option<[Tensor; 2]>,
}

impl Qkv {
    /// `names`: q, k, v, norm of q, norm of k.
    fn load(
        attn: &Scope<'_>,
        config: &Sd3Config,
        names: [&str; 5],
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let [q, k, v, norm_q, norm_k] = names;
        let (c, d) = (config.hidden_size(), config.attention_head_dim);
        let linear = packing.fused(&[q, k, v].map(|name| (attn.child(name), c)), c, true)?;
        let mut norm = |name| packing.vector(&attn.child(name), "weight", d);
        let norms = match config.qk_norm {
            true => Some([norm(norm_q)?, norm(norm_k)?]),
            false => None,
        };
        Ok(Self { linear, norms })
    }

    /// Writes queries, keys and values of `x_blc`, which is normalised and modulated, to the next rows of `joint`.
    fn fill(&self, x_blc: &Tensor, joint: &mut Joint, attention: &mut dyn Attention) -> Result<()> {
        let norms = self.norms.as_ref();
        let norms = norms.map(|norms| norms.each_ref().map(|norm| HeadNorm::Rms(norm.view())));
        let qkv_blc = linear(&self.linear, &[x_blc.view()], Epilogue::None, attention)?;
        joint.fill(&qkv_blc, norms, None)
    }

    fn byte_len(&self) -> usize {
        let norms: Vec<_> = self.norms.iter().flatten().collect();
        byte_len(&[&self.linear], &norms)
    }
}

/// The layers of a stream after attention.
#[derive(Debug)]
struct Tail {
    out: Linear,
    ff_in: Linear,
    ff_out: Linear,
}

impl Tail {
    fn load(
        scope: &Scope<'_>,
        config: &Sd3Config,
        [out, ff]: [&str; 2],
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let c = config.hidden_size();
        let ff = scope.child(ff).child("net");
        Ok(Self {
            out: packing.linear(&scope.child("attn").child(out), [c, c], true)?,
            ff_in: packing.linear(&ff.child("0.proj"), [MLP_RATIO * c, c], true)?,
            ff_out: packing.linear(&ff.child("2"), [c, MLP_RATIO * c], true)?,
        })
    }

    fn byte_len(&self) -> usize {
        byte_len(&[&self.out, &self.ff_in, &self.ff_out], &[])
    }

    /// `x_blc` with the feed-forward layers' part, of which shift, scale and gate are vectors 3, 4 and 5.
    fn feed_forward(
        &self,
        x_blc: &Tensor,
        modulation: &Tensor,
        attention: &mut dyn Attention,
    ) -> Result<Tensor> {
        let normed = modulated(x_blc, modulation, [3, 4])?;
        let gelu = Epilogue::Activation(Activation::GeluTanh);
        let inner = linear(&self.ff_in, &[normed.view()], gelu, attention)?;
        drop(normed);
        gated(
            &self.ff_out,
            inner.view(),
            chunk(modulation, 5, x_blc.dim(2))?,
            x_blc,
            attention,
        )
    }
}

/// The attention of the image to itself in SD3.5-medium (`attn2`).
#[derive(Debug)]
struct Dual {
    qkv: Qkv,
    out: Linear,
}

/// A block of SD3: text and image have separate weights and meet in attention.
#[derive(Debug)]
pub(super) struct JointBlock {
    /// For image and text.
    modulation: [Linear; 2],
    image: Qkv,
    image_tail: Tail,
    dual: Option<Dual>,
    text: Qkv,
    /// `None` in the last block, which reads the text and does not change it.
    text_tail: Option<Tail>,
    heads: usize,
}

impl JointBlock {
    /// Loads block `block` of the transformer.
    pub(super) fn load(
        scope: &Scope<'_>,
        config: &Sd3Config,
        block: usize,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let c = config.hidden_size();
        let vectors = modulation_vectors(config, block);
        let mut modulation = |name, vectors| {
            packing.linear(&scope.child(name).child("linear"), [vectors * c, c], true)
        };
        let modulation = [
            modulation("norm1", vectors[0])?,
            modulation("norm1_context", vectors[1])?,
        ];
        let own = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        let added = [
            "add_q_proj",
            "add_k_proj",
            "add_v_proj",
            "norm_added_q",
            "norm_added_k",
        ];
        let attn = scope.child("attn");
        let dual = match config.is_dual(block) {
            false => None,
            true => {
                let attn2 = scope.child("attn2");
                Some(Dual {
                    qkv: Qkv::load(&attn2, config, own, packing)?,
                    out: packing.linear(&attn2.child("to_out.0"), [c, c], true)?,
                })
            }
        };
        let text_tail = match config.is_context_pre_only(block) {
            true => None,
            false => {
                let names = ["to_add_out", "ff_context"];
                Some(Tail::load(scope, config, names, packing)?)
            }
        };
        Ok(Self {
            modulation,
            image: Qkv::load(&attn, config, own, packing)?,
            image_tail: Tail::load(scope, config, ["to_out.0", "ff"], packing)?,
            dual,
            text: Qkv::load(&attn, config, added, packing)?,
            text_tail,
            heads: config.num_attention_heads,
        })
    }

    /// Returns the vectors of image and text that [`modulation_vectors`] counts.
    pub(super) fn modulation(&self, silu_temb_bc: &Tensor) -> Result<[Tensor; 2]> {
        let [image, text] = &self.modulation;
        Ok([image.forward(silu_temb_bc)?, text.forward(silu_temb_bc)?])
    }

    /// Returns the image and text streams after the block. The last block does not change the text. Without text, attention
    /// uses its kept keys and values. `attention`: for the joint attention, and in a dual block for the image's own.
    pub(super) fn forward(
        &self,
        image_blc: &Tensor,
        text_blc: Option<&Tensor>,
        [image_mod, text_mod]: &[Tensor; 2],
        positions: &Sd3Positions,
        attention: &mut [Box<dyn Attention>],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let [joint_attention, own_attention @ ..] = attention else {
            return Err(no_attention());
        };
        let joint_attention = &mut **joint_attention;
        let (text_len, image_len) = (text_blc.map_or(0, |text| text.dim(1)), image_blc.dim(1));
        let mut joint = Joint::new(image_blc, text_len + image_len, self.heads)?;
        if let Some(text_blc) = text_blc {
            // AdaLayerNormContinuous has the scale first.
            let shift_scale = match self.text_tail {
                Some(_) => [0, 1],
                None => [1, 0],
            };
            let normed = modulated(text_blc, text_mod, shift_scale)?;
            self.text.fill(&normed, &mut joint, joint_attention)?;
        }
        let normed = modulated(image_blc, image_mod, [0, 1])?;
        self.image.fill(&normed, &mut joint, joint_attention)?;
        drop(normed);
        let attn_blc = joint.attend(joint_attention, positions.segments())?;
        let part = |start, len| attn_blc.view().narrow(1, start, len);

        let image_attn = part(text_len, image_len)?;
        let c = image_blc.dim(2);
        let (tail, gate) = (&self.image_tail, chunk(image_mod, 2, c)?);
        let mut image = gated(&tail.out, image_attn, gate, image_blc, joint_attention)?;
        if let Some(dual) = &self.dual {
            let own_attention = own_attention.first_mut().ok_or_else(no_attention)?;
            let normed = modulated(image_blc, image_mod, [6, 7])?;
            let mut own = Joint::new(image_blc, image_len, self.heads)?;
            dual.qkv.fill(&normed, &mut own, joint_attention)?;
            drop(normed);
            let own_blc = own.attend(&mut **own_attention, positions.image_segments())?;
            let gate = chunk(image_mod, 8, c)?;
            image = gated(&dual.out, own_blc.view(), gate, &image, joint_attention)?;
        }
        let image = tail.feed_forward(&image, image_mod, joint_attention)?;
        let text = match (text_blc, &self.text_tail) {
            (Some(text_blc), Some(tail)) => {
                let (attn_blc, gate) = (part(0, text_len)?, chunk(text_mod, 2, c)?);
                let text = gated(&tail.out, attn_blc, gate, text_blc, joint_attention)?;
                Some(tail.feed_forward(&text, text_mod, joint_attention)?)
            }
            (text_blc, _) => text_blc.cloned(),
        };
        Ok((image, text))
    }

    /// Returns the bytes of the weights.
    pub(super) fn byte_len(&self) -> usize {
        let dual = self.dual.as_ref();
        let [image, text] = &self.modulation;
        byte_len(&[image, text], &[])
            + self.image.byte_len()
            + self.text.byte_len()
            + self.image_tail.byte_len()
            + dual.map_or(0, |dual| dual.qkv.byte_len() + dual.out.byte_len())
            + self.text_tail.as_ref().map_or(0, Tail::byte_len)
    }
}

/// Returns the number of vectors `[c]` that modulate image and text in a block: shift, scale and gate of attention and of the
/// feed-forward layers, and of the image's own attention if there is one; scale and shift for a text that is only read.
pub(super) fn modulation_vectors(config: &Sd3Config, block: usize) -> [usize; 2] {
    let image = if config.is_dual(block) { 9 } else { 6 };
    let text = if config.is_context_pre_only(block) {
        2
    } else {
        6
    };
    [image, text]
}

/// Applies LayerNorm, with the vectors at these positions as shift and scale.
fn modulated(x_blc: &Tensor, modulation: &Tensor, [shift, scale]: [usize; 2]) -> Result<Tensor> {
    let c = x_blc.dim(2);
    let (shift, scale) = (chunk(modulation, shift, c)?, chunk(modulation, scale, c)?);
    Ok(layer_norm_modulate(x_blc, shift, scale, EPS)?)
}

/// `residual_blc` + `gate` · `layer(x_blc)`.
fn gated(
    layer: &Linear,
    x_blc: View<'_>,
    gate: View<'_>,
    residual_blc: &Tensor,
    attention: &mut dyn Attention,
) -> Result<Tensor> {
    let epilogue = Epilogue::GateResidual {
        gate,
        residual: residual_blc.view(),
    };
    linear(layer, &[x_blc], epilogue, attention)
}

fn no_attention() -> Error {
    xdit_kernels::Error::shape(
        "sd3",
        "an attention for each time a block attends",
        format_args!("fewer"),
    )
    .into()
}
