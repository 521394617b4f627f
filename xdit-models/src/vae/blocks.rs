//! The blocks that encoder and decoder share (diffusers `models/resnet.py`, `models/unets/unet_2d_blocks.py`).
//!
//! Shapes: b images, h and w pixels, c channels, channels last.

use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{
    Tensor,
    conv2d::{Conv2d, Conv2dOptions, Padding},
};

use super::VaeConfig;
use super::bands::{Bands, Framed};
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{GroupNorm, Packing};
use crate::observer::Observer;

/// A 3×3 convolution that keeps the size.
pub(super) fn conv_3x3(
    scope: &Scope<'_>,
    outputs: usize,
    inputs: usize,
    packing: &mut Packing<'_>,
) -> Result<Conv2d> {
    let options = Conv2dOptions {
        padding: Padding::all(1),
        ..Conv2dOptions::default()
    };
    packing.conv(scope, [outputs, inputs, 3], options)
}

/// `ResnetBlock2D` without a time embedding: two rounds of GroupNorm, SiLU and convolution beside a shortcut.
#[derive(Debug)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn load(
        scope: &Scope<'_>,
        [inputs, outputs]: [usize; 2],
        groups: usize,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let conv_shortcut = (inputs != outputs)
            .then(|| {
                packing.conv(
                    &scope.child("conv_shortcut"),
                    [outputs, inputs, 1],
                    Conv2dOptions::default(),
                )
            })
            .transpose()?;
        Ok(Self {
            norm1: GroupNorm::load(&scope.child("norm1"), inputs, groups, packing)?,
            conv1: conv_3x3(&scope.child("conv1"), outputs, inputs, packing)?,
            norm2: GroupNorm::load(&scope.child("norm2"), outputs, groups, packing)?,
            conv2: conv_3x3(&scope.child("conv2"), outputs, outputs, packing)?,
            conv_shortcut,
        })
    }

    /// Takes ownership of its input, so that no tensor lives longer than necessary.
    pub(super) fn forward(&self, x_bhwc: Tensor, bands: &dyn Bands) -> Result<Tensor> {
        let normed = Framed::normalised(&self.norm1, &x_bhwc, bands)?;
        let inner = normed.convolved(&self.conv1, None, bands)?;
        drop(normed);
        let normed = Framed::normalised(&self.norm2, &inner, bands)?;
        drop(inner);
        let residual = match &self.conv_shortcut {
            Some(conv) => conv.forward_rows(&x_bhwc, None, 0..x_bhwc.dim(1))?,
            None => x_bhwc,
        };
        bands.progress()?;
        normed.convolved(&self.conv2, Some(residual.view()), bands)
    }
}

/// `Attention` over all pixels with one head, with a residual connection.
#[derive(Debug)]
struct PixelAttention {
    group_norm: GroupNorm,
    qkv: Linear,
    out: Linear,
}

impl PixelAttention {
    fn load(
        scope: &Scope<'_>,
        channels: usize,
        groups: usize,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        // Checkpoints from before diffusers 0.13 use other names for the projections.
        let named = |new: &str, old: &str| {
            let new_scope = scope.child(new);
            if new_scope.contains("weight") {
                new_scope
            } else {
                scope.child(old)
            }
        };
        let qkv = [("to_q", "query"), ("to_k", "key"), ("to_v", "value")];
        Ok(Self {
            group_norm: GroupNorm::load(&scope.child("group_norm"), channels, groups, packing)?,
            qkv: packing.fused(
                &qkv.map(|(new, old)| (named(new, old), channels)),
                channels,
                true,
            )?,
            out: packing.linear(&named("to_out.0", "proj_attn"), [channels, channels], true)?,
        })
    }

    fn forward(&self, x_bhwc: Tensor, bands: &dyn Bands) -> Result<Tensor> {
        let &[b, h, w, c] = super::dims(&x_bhwc)?;
        let sums = bands.sum(self.group_norm.sums(&x_bhwc)?)?;
        let normed = self
            .group_norm
            .forward_rows(&[x_bhwc.view()], &sums, false)?
            .reshape([b, h * w, c])?;
        let qkv_blc = self.qkv.forward(&normed)?;
        drop(normed);
        bands.progress()?;
        let attention = bands.attend(&qkv_blc)?;
        drop(qkv_blc);
        let residual = x_bhwc.view().reshape([b, h * w, c])?;
        Ok(self
            .out
            .forward_with(&[attention.view()], Epilogue::Residual(residual))?
            .reshape([b, h, w, c])?)
    }
}

/// `UNetMidBlock2D`: a residual block, attention if the configuration says so, a residual block.
#[derive(Debug)]
pub(super) struct MidBlock {
    first: ResnetBlock,
    attention: Option<PixelAttention>,
    second: ResnetBlock,
}

impl MidBlock {
    pub(super) fn load(
        scope: &Scope<'_>,
        config: &VaeConfig,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let groups = config.norm_num_groups;
        let resnet = |i: usize, packing: &mut Packing<'_>| {
            ResnetBlock::load(
                &scope.child("resnets").child(i),
                [channels, channels],
                groups,
                packing,
            )
        };
        Ok(Self {
            first: resnet(0, packing)?,
            attention: config
                .mid_block_add_attention
                .then(|| {
                    PixelAttention::load(
                        &scope.child("attentions").child(0),
                        channels,
                        groups,
                        packing,
                    )
                })
                .transpose()?,
            second: resnet(1, packing)?,
        })
    }

    /// `observer` is offered `NAME.resnets.0`, `NAME.attentions.0` and `NAME`.
    pub(super) fn forward(
        &self,
        x_bhwc: Tensor,
        bands: &dyn Bands,
        name: &str,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let mut hidden = self.first.forward(x_bhwc, bands)?;
        observer.offer_picture(&format!("{name}.resnets.0"), &hidden)?;
        if let Some(attention) = &self.attention {
            hidden = attention.forward(hidden, bands)?;
            observer.offer_picture(&format!("{name}.attentions.0"), &hidden)?;
        }
        let hidden = self.second.forward(hidden, bands)?;
        observer.offer_picture(name, &hidden)?;
        Ok(hidden)
    }
}
