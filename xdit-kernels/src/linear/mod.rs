//! Linear layers: `y = x·Wᵀ + b` with weights packed once and what follows fused behind it.
//!
//! Sums are in f32, in blocks of 384 along k that are added in order; the result is rounded once, after
//! the [`Epilogue`]. A row of the result depends on that row of x alone: neither the number of rows nor the number of
//! threads changes a bit of it.

mod cpu;
mod epilogue;
mod form;
mod input;
mod plan;
mod rows;
#[cfg(test)]
mod tests;
mod tile;
mod weights;

use crate::{
    DType, Device, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, WeightForm,
    activation::Activation, dispatch::one_device, rows::Floats, vector::reserved,
};
use input::Input;
use std::fmt;
use weights::Weights;

/// A linear layer with its weights packed for one tier of the processor. Shared between threads by `Arc`.
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
/// // The same layer with its input in two parts and a residual added before the one rounding.
/// let residual = [100f32, 200.];
/// let y = layer.forward_with(
///     &[x.narrow(1, 0, 1)?, x.narrow(1, 1, 2)?],
///     Epilogue::Residual(View::from_slice(&residual, [1, 2], device)?),
/// )?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [106.5, 214.5]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub struct Linear {
    weights: Weights,
    /// One value an output, zeros where there is no bias; padded to whole panels.
    bias: Vec<f32>,
}

/// What follows the product and the bias, in f32, before the result is rounded to its dtype.
///
/// Shapes are those of the output `[.., n]`; b is the output's first dim. Operands may have any dtype and strides.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub enum Epilogue<'a> {
    /// Nothing.
    #[default]
    None,
    /// An activation function.
    Activation(Activation),
    /// `residual + y`.
    Residual(View<'a>),
    /// `residual + gate·y`: the end of a DiT branch (adaLN-Zero, arXiv:2212.09748, section 3.2).
    GateResidual {
        /// `[b, n]`, one row for all tokens of a batch entry.
        gate: View<'a>,
        /// `[b, .., n]`.
        residual: View<'a>,
    },
    /// `y·factor`, element by element: T5's gated GELU (arXiv:2002.05202).
    Mul(View<'a>),
}

impl<'a> Epilogue<'a> {
    fn operands(&self) -> [Option<View<'a>>; 2] {
        match *self {
            Self::None | Self::Activation(_) => [None, None],
            Self::Residual(x) | Self::Mul(x) => [Some(x), None],
            Self::GateResidual { gate, residual } => [Some(gate), Some(residual)],
        }
    }
}

impl Linear {
    /// The layer of torch's `weight` `[n, k]` and `bias` `[n]`, stored as `dtype`, for the tier of `device`.
    ///
    /// # Errors
    /// If the shapes differ, the processor lacks the tier, or there is no memory.
    pub fn pack(
        weight: View<'_>,
        bias: Option<View<'_>>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::pack_rows(&[(weight, bias)], dtype, device)
    }

    /// One layer that computes several of the same input, their outputs one after another (query, key and value, say).
    ///
    /// # Errors
    /// As [`pack`](Self::pack); also if there is no part or they differ in k.
    pub fn pack_rows(
        parts: &[(View<'_>, Option<View<'_>>)],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        for (weight, bias) in parts {
            if weight.ndim() != 2 {
                return Err(Error::shape("linear", "a weight [n, k]", weight));
            }
            if let Some(bias) = bias
                && bias.shape() != &weight.shape()[..1]
            {
                return Err(Error::shape(
                    "linear",
                    format!("a bias [{}]", weight.dim(0)),
                    bias,
                ));
            }
            if weight.dim(1) != parts[0].0.dim(1) {
                return Err(Error::shape(
                    "linear",
                    format!("a weight [n, {}]", parts[0].0.dim(1)),
                    weight,
                ));
            }
        }
        if parts.is_empty() {
            return Err(Error::shape("linear", "at least one weight", parts.len()));
        }
        let views: Vec<View<'_>> = parts.iter().map(|(weight, _)| *weight).collect();
        let weights = Weights::pack(&views, dtype.float("linear")?, device)?;
        let mut bias_n = reserved("linear bias", weights.padded_n())?;
        for (weight, bias) in parts {
            match bias {
                // Through `dtype`, as a torch module cast to it would have.
                Some(bias) => bias_n.extend_from_slice(&Floats::new(
                    "linear",
                    crate::layout::cast(*bias, dtype)?.view(),
                    bias.shape(),
                )?),
                None => bias_n.resize(bias_n.len() + weight.dim(0), 0.0),
            }
        }
        bias_n.resize(weights.padded_n(), 0.0);
        Ok(Self {
            weights,
            bias: bias_n,
        })
    }

    /// Length k of an input row.
    pub fn in_features(&self) -> usize {
        self.weights.k
    }

    /// Length n of an output row.
    pub fn out_features(&self) -> usize {
        self.weights.n
    }

    /// The form that the weights are held in.
    pub fn form(&self) -> WeightForm {
        WeightForm::Dense(self.dtype())
    }

    /// The dtype that the weights are stored as.
    pub fn dtype(&self) -> DType {
        self.weights.dtype.dtype()
    }

    /// Bytes that the layer holds.
    pub fn byte_len(&self) -> usize {
        self.weights.byte_len() + self.bias.len() * size_of::<f32>()
    }

    /// `x·Wᵀ + b`, in x's dtype (which may differ from the weights').
    ///
    /// # Shapes
    /// x `[.., k]`, result `[.., n]`.
    ///
    /// # Errors
    /// If x's last dim is not k, or there is no memory.
    pub fn forward<'a>(&self, x: impl Into<View<'a>>) -> Result<Tensor> {
        self.forward_with(&[x.into()], Epilogue::None)
    }

    /// The layer of inputs that stand side by side along k (nothing is copied together), with an epilogue fused.
    ///
    /// # Shapes
    /// x `[.., k₁]`, `[.., k₂]`, … with k₁ + k₂ + … = k; the result `[.., n]` has the first one's dtype.
    ///
    /// # Errors
    /// If a shape does not fit, or there is no memory.
    pub fn forward_with(&self, x: &[View<'_>], epilogue: Epilogue<'_>) -> Result<Tensor> {
        let first = x
            .first()
            .ok_or_else(|| Error::shape("linear", "at least one input", x.len()))?;
        let mut shape = first.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.out_features();
        }
        // SAFETY: `forward_into` writes every element.
        let mut out = unsafe {
            TensorMut::uninit("linear", shape.as_slice(), first.dtype(), first.device())?
        };
        self.forward_into(x, epilogue, out.view_mut())?;
        Ok(out.freeze())
    }

    /// [`forward_with`](Self::forward_with) into memory that is there, of any dtype and row strides.
    ///
    /// # Errors
    /// As above; also if `out` has another shape.
    pub fn forward_into(
        &self,
        x: &[View<'_>],
        epilogue: Epilogue<'_>,
        out: ViewMut<'_>,
    ) -> Result<()> {
        let (n, k) = (self.out_features(), self.in_features());
        let input = Input::new(x, k)?;
        let lead = &x[0].shape()[..x[0].ndim() - 1];
        let shape = [lead, &[n]].concat();
        out.expect("linear", &shape, out.dtype())?;
        let _span = tracing::trace_span!("linear", m = input.count(), n, k).entered();
        if input.count() * n == 0 {
            return Ok(());
        }
        if out.strides()[lead.len()] != 1 && n > 1 {
            return Err(Error::shape(
                "linear",
                "an output whose last dim is adjacent",
                out,
            ));
        }
        let operands = epilogue.operands();
        let inputs = x.iter().chain(operands.iter().flatten()).map(View::device);
        match one_device("linear", inputs.chain([&self.weights.device, out.device()]))? {
            DeviceKind::Cpu(_) => {
                out.written_by(|out| cpu::linear(self, &input, epilogue, &shape, out))
            }
        }
    }
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Linear [{}, {}] {}",
            self.out_features(),
            self.in_features(),
            self.dtype()
        )
    }
}
