//! Normalisation layers with their learned scale and shift.

use xdit_kernels::group_norm::{GroupSums, group_norm_rows};
use xdit_kernels::{Tensor, View, norm};

use super::Packing;
use crate::error::Result;
use crate::files::weights::Scope;

/// LayerNorm over the last dim.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub(crate) fn load(
        scope: &Scope<'_>,
        channels: usize,
        eps: f32,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        Ok(Self {
            weight: packing.vector(scope, "weight", channels)?,
            bias: packing.vector(scope, "bias", channels)?,
            eps,
        })
    }

    /// x_blc to the same shape.
    pub(crate) fn forward(&self, x_blc: &Tensor) -> Result<Tensor> {
        Ok(norm::layer_norm(
            x_blc,
            Some(self.weight.view()),
            Some(self.bias.view()),
            self.eps,
        )?)
    }

    /// Returns the bytes of the weights.
    pub(crate) fn byte_len(&self) -> usize {
        super::byte_len(&[], &[&self.weight, &self.bias])
    }
}

/// GroupNorm over the channels of NHWC images. All group norms of an `AutoencoderKL` have this epsilon.
#[derive(Debug)]
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
}

const GROUP_NORM_EPS: f32 = 1e-6;

impl GroupNorm {
    pub(crate) fn load(
        scope: &Scope<'_>,
        channels: usize,
        groups: usize,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        Ok(Self {
            weight: packing.vector(scope, "weight", channels)?,
            bias: packing.vector(scope, "bias", channels)?,
            groups,
        })
    }

    /// Normalises x_bhwc, and applies SiLU if `silu` is set. The shape stays the same.
    pub(crate) fn forward<'a>(&self, x_bhwc: impl Into<View<'a>>, silu: bool) -> Result<Tensor> {
        let x_bhwc = x_bhwc.into();
        self.forward_rows(&[x_bhwc], &self.sums(x_bhwc)?, silu)
    }

    /// Returns the sums of some rows of images, for their statistics.
    pub(crate) fn sums<'a>(&self, x_bhwc: impl Into<View<'a>>) -> Result<GroupSums> {
        Ok(GroupSums::of(x_bhwc, self.groups)?)
    }

    /// Normalises some rows of images with the statistics `sums`. `x` is a list of parts, from top to bottom.
    pub(crate) fn forward_rows(
        &self,
        parts_bhwc: &[View<'_>],
        sums: &GroupSums,
        silu: bool,
    ) -> Result<Tensor> {
        Ok(group_norm_rows(
            parts_bhwc,
            sums,
            self.weight.view(),
            self.bias.view(),
            GROUP_NORM_EPS,
            silu,
        )?)
    }
}
