//! What a convolution does besides its weights, and the form of weights that follows.

use crate::{DType, Device, DeviceKind, Tier, WeightForm};

/// The largest padding on a side of the input. Coordinates in the padded input then never wrap.
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
    /// The same padding on every side.
    pub fn all(n: usize) -> Self {
        Self {
            top: n,
            bottom: n,
            left: n,
            right: n,
        }
    }
}

/// The algorithm of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// `Winograd` for 3×3 kernels with stride 1 and more than four output channels, else `Direct`.
    #[default]
    Auto,
    /// The plain sum of products.
    Direct,
    /// Winograd's F(4×4, 3×3), for 3×3 kernels with stride 1 only. The weights take 4× as much memory.
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
    /// Distance between the inputs of neighbouring outputs, in both directions.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Whether the input is first doubled in size by repeating each pixel (diffusers' `Upsample2D`). The doubled picture is
    /// never stored.
    pub upsample: bool,
}

/// The most output channels for which the direct algorithm is faster than Winograd's where both apply.
pub(super) const FEW_OUTPUTS: usize = 4;

impl Conv2dOptions {
    /// The form in which [`Conv2d`](super::Conv2d) holds a weight of this shape and dtype on `device` under these options. The
    /// form decides the algorithm and, by [`WeightForm::matrix_bytes`], the memory.
    ///
    /// bf16 stays bf16 for the direct algorithm on [`Tier::Avx512Bf16`], which has an instruction for such products. Winograd's
    /// algorithm is faster than that too, 1.5 times as fast on a Zen 4: it multiplies a quarter as often, the instruction at twice the
    /// rate of f32.
    ///
    /// # Shapes
    /// `[oc, ic, kh, kw]`, as PyTorch keeps the weight.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{DType, Device, WeightForm, conv2d::Conv2dOptions};
    /// let form = |shape| Conv2dOptions::default().weight_form(shape, DType::F32, &Device::cpu());
    /// assert_eq!(form([128, 64, 3, 3]), WeightForm::Winograd);
    /// assert_eq!(form([128, 64, 1, 1]), WeightForm::Dense(DType::F32));
    /// ```
    pub fn weight_form(
        &self,
        [oc, _, kh, kw]: [usize; 4],
        dtype: DType,
        device: &Device,
    ) -> WeightForm {
        let is_winograd = match self.algorithm {
            Algorithm::Winograd => true,
            Algorithm::Auto => self.winograd_fits([kh, kw]) && oc > FEW_OUTPUTS,
            Algorithm::Direct => false,
        };
        #[cfg(feature = "cuda")]
        if matches!(device.kind(), DeviceKind::Cuda(_)) {
            return WeightForm::Dense(dtype);
        }
        let bf16_instruction = device.kind() == DeviceKind::Cpu(Tier::Avx512Bf16);
        let pairs = dtype == DType::BF16 && bf16_instruction && oc > FEW_OUTPUTS;
        match is_winograd {
            true => WeightForm::Winograd,
            false if pairs => WeightForm::Dense(DType::BF16),
            false => WeightForm::Dense(DType::F32),
        }
    }

    /// Whether Winograd's algorithm applies to a kernel of this size.
    pub(super) fn winograd_fits(&self, kernel: [usize; 2]) -> bool {
        kernel == [3, 3] && self.stride == 1
    }
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
