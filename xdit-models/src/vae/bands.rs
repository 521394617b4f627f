//! The seam of parallel decoding: a picture cut into bands of rows, one a rank.
//!
//! The decoder is single-device code that holds some rows of a picture. It asks others for three things, the trait
//! [`Bands`]: the rows beside its own, statistics of all rows, attention to all pixels. [`Whole`] answers for a rank that
//! holds everything, and then nothing differs from code that never heard of bands, to the last bit.
//!
//! Shapes: b pictures, h and w pixels, c channels, channels last.

use std::fmt;
use std::ops::Range;

use xdit_kernels::attention::Mask;
use xdit_kernels::group_norm::GroupSums;
use xdit_kernels::{Tensor, View, conv2d::Conv2d};

use crate::error::Result;
use crate::layers::{GroupNorm, Progress, Told, attend_by, convolution};

/// What the holder of some rows of a picture asks of the holders of the others.
///
/// # Collective
/// Every holder calls the same methods in the same order, one without rows too.
pub(crate) trait Bands: fmt::Debug {
    /// The latent rows held here, of `total`.
    fn rows(&self, total: usize) -> Range<usize>;

    /// Starts to fetch the rows beside `x_bhwc`, this rank's rows at some resolution.
    fn start_edges<'a>(&'a self, x_bhwc: &Tensor) -> Result<Edges<'a>>;

    /// The sums over everyone's rows, the same bytes for everyone.
    fn sum(&self, sums: GroupSums) -> Result<GroupSums>;

    /// Attention with one head of the latent pixels held here to all: `[b, l, 3c]` to `[b, l, c]`.
    fn attend(&self, qkv_blc: &Tensor) -> Result<Tensor>;

    /// An operation on the rows held here is finished; an error if another holder has failed. Not collective.
    fn progress(&self) -> Result<()>;
}

/// Waits for the row above and the row below, `[b, 1, w, c]`; none at the picture's border.
pub(crate) type Edges<'a> = Box<dyn FnOnce() -> Result<[Option<Tensor>; 2]> + 'a>;

/// One holder of all rows, which may have others beside it that wait for the picture.
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
        Ok(self.0.note()?)
    }
}

/// A band and the rows beside it: what a 3×3 convolution reads.
#[derive(Debug)]
pub(super) struct Framed {
    x_bhwc: Tensor,
    /// Where the band itself lies in it.
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

    /// Rows `band` of `x`, which holds the rows beside them already.
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

    /// The band's rows of a convolution that keeps the size, plus `residual`.
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

    /// The band's rows of a convolution that doubles the size first.
    pub(super) fn upsampled(&self, conv: &Conv2d, bands: &dyn Bands) -> Result<Tensor> {
        let (width, told) = (2 * self.x_bhwc.dim(2), || bands.progress());
        let lines = 2 * self.band.start..2 * self.band.end;
        convolution(conv, &self.x_bhwc, None, lines, width, &told)
    }
}
