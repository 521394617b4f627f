//! Linear layers: `y = x·Wᵀ + b`, with weights that are packed once and an operation fused behind the product.
//!
//! Sums are in f32, in blocks along k that are added in order. The result is rounded once, after the [`Epilogue`]. A row of
//! the result depends on that row of x alone: neither the number of rows nor the number of threads changes a bit of it.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod epilogue;
#[cfg(test)]
mod tests;

use crate::{
    DType, Device, DeviceKind, Error, Result, Shape, Tensor, TensorMut, View, ViewMut, WeightForm,
    dispatch::{one_device, readable_by},
};
use cpu::PackedLinear;
#[cfg(feature = "cuda")]
use cuda::CudaLinear;
pub use epilogue::Epilogue;
use std::fmt;

/// What errors call these kernels.
const OP: &str = "linear";

/// A linear layer, whose weights one device holds. Threads share it by `Arc`.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, View, linear::{Epilogue, Linear}};
/// let device = &Device::cpu();
/// let weight = [1f32, 2., 3., 4., 5., 6.];
/// let bias = [0.5f32, -0.5];
/// let layer = Linear::pack(
///     View::from_slice(&weight, [2, 3], device)?,
///     Some(View::from_slice(&bias, [2], device)?),
///     DType::F32,
///     device,
/// )?;
/// let x = [1f32, 1., 1.];
/// let x = View::from_slice(&x, [1, 3], device)?;
/// assert_eq!(layer.forward(x)?.to_vec_blocking::<f32>()?, [6.5, 14.5]);
///
/// // The same layer with its input in two parts, and a residual that is added before the only rounding.
/// let residual = [100f32, 200.];
/// let y = layer.forward_with(
///     &[x.narrow(1, 0, 1)?, x.narrow(1, 1, 2)?],
///     Epilogue::Residual(View::from_slice(&residual, [1, 2], device)?),
/// )?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [106.5, 214.5]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub struct Linear {
    in_features: usize,
    out_features: usize,
    form: WeightForm,
    device: Device,
    weights: LinearWeights,
}

/// Weights and bias as the kernels of a kind of device read them.
enum LinearWeights {
    Cpu(PackedLinear),
    #[cfg(feature = "cuda")]
    Cuda(CudaLinear),
}

impl Linear {
    /// The layer of torch's `weight` `[n, k]` and `bias` `[n]`, rounded to `dtype` and packed for `device`.
    ///
    /// # Errors
    /// If the shapes do not fit each other, a dtype is not a float, `weight` and `bias` are on two devices, `device` cannot
    /// read their memory, or there is no memory.
    pub fn pack(
        weight: View<'_>,
        bias: Option<View<'_>>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::pack_rows(&[(weight, bias)], dtype, device)
    }

    /// One layer that computes several layers of the same input, their outputs one after another: query, key and value,
    /// for example.
    ///
    /// # Errors
    /// As [`pack`](Self::pack); also if there is no part, or the parts differ in k.
    pub fn pack_rows(
        parts: &[(View<'_>, Option<View<'_>>)],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let [out_features, in_features] = sizes(parts)?;
        let float = dtype.float(OP)?;
        let operands = parts.iter().flat_map(|(weight, bias)| {
            let bias = bias.as_ref().map(View::device);
            [Some(weight.device()), bias].into_iter().flatten()
        });
        let weights = match readable_by(OP, device, operands)? {
            DeviceKind::Cpu(_) => LinearWeights::Cpu(PackedLinear::new(
                parts,
                [out_features, in_features],
                float,
                device,
            )?),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => LinearWeights::Cuda(CudaLinear::new(parts, dtype, device)?),
        };
        Ok(Self {
            in_features,
            out_features,
            form: WeightForm::Dense(dtype),
            device: device.clone(),
            weights,
        })
    }

    /// Length k of an input row.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Length n of an output row.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// The form in which the layer holds its weights.
    pub fn form(&self) -> WeightForm {
        self.form
    }

    /// The device that holds the weights, and that computes the layer.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that the layer takes in the memory of its device: weights, padding and bias.
    pub fn byte_len(&self) -> usize {
        match &self.weights {
            LinearWeights::Cpu(packed) => packed.byte_len(),
            #[cfg(feature = "cuda")]
            LinearWeights::Cuda(layer) => layer.byte_len(),
        }
    }

    /// `x·Wᵀ + b`, in the dtype of x, which may differ from that of the weights.
    ///
    /// # Shapes
    /// x `[.., k]`, result `[.., n]`.
    ///
    /// # Errors
    /// If the last dim of x is not k, its dtype is not a float, x and the weights are on two devices, or there is no memory.
    pub fn forward<'a>(&self, x: impl Into<View<'a>>) -> Result<Tensor> {
        self.forward_with(&[x.into()], Epilogue::None)
    }

    /// The layer of inputs that stand side by side along k, without a copy that joins them, and with an epilogue.
    ///
    /// # Shapes
    /// x `[.., k₁]`, `[.., k₂]`, … with k₁ + k₂ + … = k. The result `[.., n]` has the dtype of the first input.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), for each input and each operand of the epilogue; also if there is no input.
    pub fn forward_with(&self, x: &[View<'_>], epilogue: Epilogue<'_>) -> Result<Tensor> {
        let shape = self.output_shape(x)?;
        // SAFETY: `forward_into` writes every element.
        let mut out = unsafe { TensorMut::uninit(OP, shape, x[0].dtype(), x[0].device())? };
        self.forward_into(x, epilogue, out.view_mut())?;
        Ok(out.freeze())
    }

    /// Writes the result of [`forward_with`](Self::forward_with) into `out`, which may have any float dtype and any distance
    /// between its rows.
    ///
    /// # Errors
    /// As [`forward_with`](Self::forward_with); also if `out` has another shape, the elements of a row of `out` are not
    /// adjacent, or `out` is on another device.
    pub fn forward_into(
        &self,
        x: &[View<'_>],
        epilogue: Epilogue<'_>,
        out: ViewMut<'_>,
    ) -> Result<()> {
        let shape = self.output_shape(x)?;
        let (n, k) = (self.out_features, self.in_features);
        let m = shape[..shape.len() - 1].iter().product::<usize>();
        let _span = tracing::trace_span!("linear", m, n, k).entered();
        for dtype in x.iter().map(View::dtype).chain([out.dtype()]) {
            dtype.float(OP)?;
        }
        out.expect(OP, &shape, out.dtype())?;
        if out.strides()[shape.len() - 1] != 1 && n > 1 {
            return Err(Error::shape(
                OP,
                "an output whose last dim is adjacent",
                out,
            ));
        }
        let operands = epilogue.operands(&shape);
        let operands = operands.iter().flatten();
        for (operand, wanted) in operands.clone() {
            operand.dtype().float(OP)?;
            if operand.shape() != &wanted[..] {
                let wanted = format!("an operand {wanted:?} in the epilogue");
                return Err(Error::shape(OP, wanted, operand));
            }
        }
        let devices = (x.iter().map(View::device))
            .chain(operands.map(|(operand, _)| operand.device()))
            .chain([&self.device, out.device()]);
        one_device(OP, devices)?;
        if shape.contains(&0) {
            return Ok(());
        }
        match &self.weights {
            LinearWeights::Cpu(packed) => {
                out.written_by(|out| cpu::linear(packed, x, epilogue, &shape, out))
            }
            #[cfg(feature = "cuda")]
            LinearWeights::Cuda(layer) => {
                out.written_by(|out| cuda::linear(layer, x, epilogue, &shape, out))
            }
        }
    }

    /// The shape `[.., n]` of the result for these inputs, whose last dims sum to k and whose other dims are equal.
    fn output_shape(&self, x: &[View<'_>]) -> Result<Shape> {
        let k = self.in_features;
        let wrong = || {
            let wanted = format!("inputs [.., k] whose k sum to {k}, other dims equal");
            Error::shape(OP, wanted, x)
        };
        let (_, lead) = x
            .first()
            .and_then(|x| x.shape().split_last())
            .ok_or_else(wrong)?;
        let mut sum = 0usize;
        for x in x {
            let (&width, others) = x.shape().split_last().ok_or_else(wrong)?;
            sum = sum.checked_add(width).ok_or_else(wrong)?;
            if others != lead {
                return Err(wrong());
            }
        }
        if sum != k {
            return Err(wrong());
        }
        Shape::from_iter(lead.iter().copied().chain([self.out_features])).ok_or_else(wrong)
    }
}

/// n and k of the layer that these parts make.
fn sizes(parts: &[(View<'_>, Option<View<'_>>)]) -> Result<[usize; 2]> {
    let Some((first, _)) = parts.first() else {
        return Err(Error::shape(OP, "at least one weight", parts.len()));
    };
    let mut n = 0usize;
    for (weight, bias) in parts {
        weight.dtype().float(OP)?;
        let &[rows, k] = weight.shape() else {
            return Err(Error::shape(OP, "a weight [n, k]", weight));
        };
        if first.shape().last() != Some(&k) {
            let wanted = format!("a weight [n, {}]", first.dim(1));
            return Err(Error::shape(OP, wanted, weight));
        }
        if let Some(bias) = bias {
            bias.dtype().float(OP)?;
            if bias.shape() != [rows] {
                return Err(Error::shape(OP, format!("a bias [{rows}]"), bias));
            }
        }
        n = n.checked_add(rows).ok_or(Error::OutOfMemory {
            op: OP,
            bytes: usize::MAX,
        })?;
    }
    Ok([n, first.dim(1)])
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, k) = (self.out_features, self.in_features);
        write!(f, "Linear [{n}, {k}] {} on {}", self.form, self.device)
    }
}
