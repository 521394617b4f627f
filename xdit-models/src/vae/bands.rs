//! The trait of parallel decoding: an image is divided into bands of rows, one for each rank.
//!
//! The decoder is single-device code for some rows of an image. It needs three things of the other ranks, which are the trait
//! [`Bands`]: the rows next to its own, statistics of all rows, and attention to all pixels. [`Whole`] implements the trait for
//! a rank with all rows. The result is then the same, to the last bit, as without bands.
//!
//! Shapes: b images, h and w pixels, c channels, channels last.

use std::fmt;
use std::ops::Range;

use xdit_kernels::attention::Mask;
use xdit_kernels::group_norm::GroupSums;
use xdit_kernels::{Tensor, View, conv2d::Conv2d};

use crate::error::Result;
use crate::layers::{GroupNorm, Progress, Told, attend_by, convolution};

/// The calls of a rank with some rows of an image to the ranks with the others.
///
/// # Collective
/// Every rank calls the same methods in the same order, even if it has no rows.
pub(crate) trait Bands: fmt::Debug {
    /// Returns the latent rows of this rank, of `total`.
    fn rows(&self, total: usize) -> Range<usize>;

    /// Starts to receive the rows next to `x_bhwc`, this rank's rows at some resolution.
    fn start_edges<'a>(&'a self, x_bhwc: &Tensor) -> Result<Edges<'a>>;

    /// Returns the sums over the rows of all ranks, the same bytes on every rank.
    fn sum(&self, sums: GroupSums) -> Result<GroupSums>;

    /// Computes attention with one head of this rank's latent pixels to all: `[b, l, 3c]` to `[b, l, c]`.
    fn attend(&self, qkv_blc: &Tensor) -> Result<Tensor>;

    /// Reports that an operation on this rank's rows is finished. An error if another rank has failed or the call is cancelled. Not
    /// collective.
    fn progress(&self) -> Result<()>;
}

/// Waits for the row above and the row below, `[b, 1, w, c]`. `None` at the border of the image.
pub(crate) type Edges<'a> = Box<dyn FnOnce() -> Result<[Option<Tensor>; 2]> + 'a>;

/// A rank with all rows. Other ranks may wait for its image, and the call may be cancelled.
#[derive(Debug, Default)]
pub(crate) struct Whole(pub(crate) Progress);

impl Bands for Whole {
    fn rows(&self, total: usize) -> Range<usize> {
        0..total
    }

    fn start_edges<'a>(&'a self, _: &Tensor) -> Result<Edges<'a>> {
        Ok(Box::new(|| Ok([None, None])))
    }

    fn sum(&self, sums: GroupSums) -> Result<GroupSums> {
        Ok(sums)
    }

    fn attend(&self, qkv_blc: &Tensor) -> Result<Tensor> {
        let mut attention = Told(self.0.clone());
        attend_by(&mut attention, &[], qkv_blc, 1, None, Mask::default())
    }

    fn progress(&self) -> Result<()> {
        self.0.note()
    }
}

/// A band and the rows next to it, which a 3×3 convolution reads.
#[derive(Debug)]
pub(super) struct Framed {
    x_bhwc: Tensor,
    /// The position of the band in it.
    band: Range<usize>,
}

impl Framed {
    /// `x` normalised with the statistics of all rows, through SiLU. The rows beside it are fetched as they are,
    /// meanwhile, and normalised here straight to where the convolution reads them, so that the band is written once.
    pub(super) fn normalised(norm: &GroupNorm, x_bhwc: &Tensor, bands: &dyn Bands) -> Result<Self> {
        let edges = bands.start_edges(x_bhwc)?;
        let own = norm.sums(x_bhwc)?;
        bands.progress()?;
        let sums = bands.sum(own)?;
        let normed = Self::of(x_bhwc, edges()?, |parts| {
            norm.forward_rows(parts, &sums, true)
        })?;
        bands.progress()?;
        Ok(normed)
    }

    /// `x` as it is.
    pub(super) fn plain(x_bhwc: Tensor, bands: &dyn Bands) -> Result<Self> {
        let edges = bands.start_edges(&x_bhwc)?;
        Self::of(&x_bhwc, edges()?, |parts| match parts {
            [_] => Ok(x_bhwc.clone()),
            _ => Ok(Tensor::cat(parts, 1)?),
        })
    }

    /// Returns rows `band` of `x`, which also contains the rows next to them.
    pub(super) fn within(x_bhwc: Tensor, band: Range<usize>) -> Self {
        Self { x_bhwc, band }
    }

    fn of(
        x_bhwc: &Tensor,
        [above, below]: [Option<Tensor>; 2],
        join: impl FnOnce(&[View<'_>]) -> Result<Tensor>,
    ) -> Result<Self> {
        let parts: Vec<View<'_>> = [above.as_ref(), Some(x_bhwc), below.as_ref()]
            .into_iter()
            .flatten()
            .map(Tensor::view)
            .collect();
        let first = above.as_ref().map_or(0, |above| above.dim(1));
        Ok(Self {
            x_bhwc: join(&parts)?,
            band: first..first + x_bhwc.dim(1),
        })
    }

    /// Returns the band's rows of a convolution that keeps the size, plus `residual`.
    pub(super) fn convolved(
        &self,
        conv: &Conv2d,
        residual: Option<View<'_>>,
        bands: &dyn Bands,
    ) -> Result<Tensor> {
        let (width, told) = (self.x_bhwc.dim(2), || bands.progress());
        convolution(
            conv,
            &self.x_bhwc,
            residual,
            self.band.clone(),
            width,
            &told,
        )
    }

    /// Returns the band's rows of a convolution that doubles the size first.
    pub(super) fn upsampled(&self, conv: &Conv2d, bands: &dyn Bands) -> Result<Tensor> {
        let (width, told) = (2 * self.x_bhwc.dim(2), || bands.progress());
        let lines = 2 * self.band.start..2 * self.band.end;
        convolution(conv, &self.x_bhwc, None, lines, width, &told)
    }
}
