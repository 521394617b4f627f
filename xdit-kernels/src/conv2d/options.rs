//! What a convolution does besides its weights.

/// The most zeros on a side of the input: coordinates in the padded input then never wrap.
pub(super) const MAX_PADDING: usize = 1 << 31;

/// Rows and columns of zeros around the input, at most 2^31 on a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns before.
    pub left: usize,
    /// Columns after.
    pub right: usize,
}

impl Padding {
    /// The same on every side.
    pub fn all(n: usize) -> Self {
        Self {
            top: n,
            bottom: n,
            left: n,
            right: n,
        }
    }
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// `Winograd` where it applies and pays (not for four output channels or fewer), else `Direct`.
    #[default]
    Auto,
    /// The plain sum of products.
    Direct,
    /// F(4×4, 3×3): for 3×3 kernels with stride 1 only. The packed weights take 4× the room.
    Winograd,
}

/// What a convolution does besides its weights.
///
/// # Examples
/// ```
/// use xdit_kernels::conv2d::{Conv2dOptions, Padding};
/// // diffusers' Downsample2D of a VAE encoder: stride 2, one row below and one column after.
/// let down = Conv2dOptions {
///     stride: 2,
///     padding: Padding { bottom: 1, right: 1, ..Padding::default() },
///     ..Conv2dOptions::default()
/// };
/// assert!(!down.upsample);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Distance of neighbouring outputs in the input, in both directions.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
    /// How it is computed.
    pub algorithm: Algorithm,
    /// Whether the input is first doubled in size by repeating each pixel (diffusers' `Upsample2D`); the doubled picture
    /// is never made.
    pub upsample: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self {
            stride: 1,
            padding: Padding::default(),
            algorithm: Algorithm::Auto,
            upsample: false,
        }
    }
}
