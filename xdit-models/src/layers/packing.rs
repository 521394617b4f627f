//! Packs weights from a [`Scope`] into the form of the kernels.

use std::fmt;
use std::ops::Range;

use xdit_kernels::conv2d::{Conv2d, Conv2dOptions};
use xdit_kernels::linear::Linear;
use xdit_kernels::{DType, Device, Tensor, View, WeightForm};

use crate::cancel::CancelToken;
use crate::error::Result;
use crate::files::weights::Scope;

/// How a model's weights are packed, and the observer of the progress.
///
/// Each tensor is checked for NaN and packed once from the mapped file. Then its pages are released.
pub struct Packing<'a> {
    dtype: DType,
    device: Device,
    names_only: bool,
    bytes: u64,
    on_packed: Option<&'a mut dyn FnMut(u64)>,
    cancel: CancelToken,
}

impl fmt::Debug for Packing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packing")
            .field("dtype", &self.dtype)
            .field("device", &self.device)
            .field("names_only", &self.names_only)
            .finish_non_exhaustive()
    }
}

impl<'a> Packing<'a> {
    /// Packs weights, and keeps activations, in `dtype`.
    #[must_use]
    pub fn new(dtype: DType, device: Device) -> Self {
        Self {
            dtype,
            device,
            names_only: false,
            bytes: 0,
            on_packed: None,
            cancel: CancelToken::NEVER,
        }
    }

    /// Requests every tensor by name and shape but packs none. The resulting model cannot be run. Use it to check which tensors
    /// a configuration of any size needs.
    #[must_use]
    pub fn names_only() -> Self {
        Self {
            names_only: true,
            ..Self::new(DType::F32, Device::cpu())
        }
    }

    /// Like [`names_only`](Self::names_only), for a model that will hold its weights in `dtype`. [`bytes`](Self::bytes) then
    /// returns how much memory they will take.
    pub(crate) fn sizes_only(dtype: DType) -> Self {
        Self {
            dtype,
            ..Self::names_only()
        }
    }

    /// Calls `on_packed` with the stored bytes of each packed tensor.
    #[must_use]
    pub fn on_packed(self, on_packed: &'a mut dyn FnMut(u64)) -> Self {
        Self {
            on_packed: Some(on_packed),
            ..self
        }
    }

    /// Ends with [`Error::Cancelled`](crate::Error::Cancelled) at the next tensor after `token` is cancelled.
    #[must_use]
    pub fn cancelled_by(self, token: CancelToken) -> Self {
        Self {
            cancel: token,
            ..self
        }
    }

    /// Returns the dtype of activations between layers.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the bytes of all weights that were requested so far, in the forms in which kernels hold them, without padding.
    /// Tables that stay in their file count as stored, since the pages that are read stay in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a matrix in this form, and a vector of f32.
    fn count(&mut self, form: WeightForm, rows: usize, columns: usize, vector: usize) {
        let vector = WeightForm::Dense(DType::F32).matrix_bytes(vector, 1);
        self.bytes = (self.bytes)
            .saturating_add(form.matrix_bytes(rows, columns))
            .saturating_add(vector);
    }

    /// Packs the linear layer `weight` (and `bias`, if it has one) of `scope`.
    pub(crate) fn linear(
        &mut self,
        scope: &Scope<'_>,
        [outputs, inputs]: [usize; 2],
        bias: bool,
    ) -> Result<Linear> {
        self.fused(&[(scope.clone(), outputs)], inputs, bias)
    }

    /// Packs the same without a bias, in `dtype`.
    pub(crate) fn linear_as(
        &mut self,
        scope: &Scope<'_>,
        shape: [usize; 2],
        dtype: DType,
    ) -> Result<Linear> {
        let others = std::mem::replace(&mut self.dtype, dtype);
        let linear = self.linear(scope, shape, false);
        self.dtype = others;
        linear
    }

    /// Packs several linear layers of the same input as one. Their outputs follow each other.
    pub(crate) fn fused(
        &mut self,
        parts: &[(Scope<'_>, usize)],
        inputs: usize,
        bias: bool,
    ) -> Result<Linear> {
        self.cancel.check()?;
        let mut tensors = Vec::with_capacity(parts.len());
        for (scope, outputs) in parts {
            let weight = scope.tensor("weight", &[*outputs, inputs])?;
            let bias = bias
                .then(|| scope.tensor("bias", &[*outputs]))
                .transpose()?;
            tensors.push((weight, bias));
        }
        let views = tensors
            .iter()
            .map(|(weight, bias)| {
                let (mut weight, mut bias) = (weight.view(), bias.as_ref().map(Tensor::view));
                if self.names_only {
                    weight = weight.narrow(0, 0, 1)?.narrow(1, 0, 1)?;
                    bias = bias.map(|b| b.narrow(0, 0, 1)).transpose()?;
                }
                Ok((weight, bias))
            })
            .collect::<Result<Vec<(View<'_>, Option<View<'_>>)>>>()?;
        let linear = Linear::pack_rows(&views, self.dtype, &self.device)?;
        for ((scope, outputs), (weight, bias)) in parts.iter().zip(&tensors) {
            let of_bias = bias.as_ref().map_or(0, Tensor::numel);
            self.count(linear.form(), *outputs, inputs, of_bias);
            self.done(scope, "weight", weight);
            if let Some(bias) = bias {
                self.done(scope, "bias", bias);
            }
        }
        Ok(linear)
    }

    /// Packs only these rows of outputs, one after another, of the linear layer `weight` and `bias` of `scope`.
    pub(crate) fn linear_rows(
        &mut self,
        scope: &Scope<'_>,
        [outputs, inputs]: [usize; 2],
        rows: impl Iterator<Item = Range<usize>>,
    ) -> Result<Linear> {
        self.cancel.check()?;
        let weight = scope.tensor("weight", &[outputs, inputs])?;
        let bias = scope.tensor("bias", &[outputs])?;
        let (kept, most) = match self.names_only {
            true => (1, 1),
            false => (inputs, usize::MAX),
        };
        let mut held = 0usize;
        let parts = rows
            .map(|rows| {
                held = held.saturating_add(rows.len());
                let count = rows.len().min(most);
                let weight = weight.view().narrow(0, rows.start, count)?;
                let bias = bias.view().narrow(0, rows.start, count)?;
                Ok((weight.narrow(1, 0, kept)?, Some(bias)))
            })
            .collect::<Result<Vec<_>>>()?;
        let linear = Linear::pack_rows(&parts, self.dtype, &self.device)?;
        self.count(linear.form(), held, inputs, held);
        self.done(scope, "weight", &weight);
        self.done(scope, "bias", &bias);
        Ok(linear)
    }

    /// Packs the convolution `weight` and `bias` of `scope` with a square kernel of `size`.
    pub(crate) fn conv(
        &mut self,
        scope: &Scope<'_>,
        [outputs, inputs, size]: [usize; 3],
        options: Conv2dOptions,
    ) -> Result<Conv2d> {
        self.cancel.check()?;
        let shape = [outputs, inputs, size, size];
        let weight = scope.tensor("weight", &shape)?;
        let bias = scope.tensor("bias", &[outputs])?;
        let (mut weight_view, mut bias_view) = (weight.view(), bias.view());
        if self.names_only {
            weight_view = weight_view.narrow(0, 0, 1)?.narrow(1, 0, 1)?;
            bias_view = bias_view.narrow(0, 0, 1)?;
        }
        let conv = Conv2d::pack(
            weight_view,
            Some(bias_view),
            options,
            self.dtype,
            &self.device,
        )?;
        let columns = weight.numel() / outputs.max(1);
        let form = options.weight_form(shape, self.dtype, &self.device);
        self.count(form, outputs, columns, outputs);
        self.done(scope, "weight", &weight);
        self.done(scope, "bias", &bias);
        Ok(conv)
    }

    /// Packs the convolution `weight` and `bias` of `scope` whose stride is its square kernel of `size`, as a linear layer of
    /// patches in the order (row, column, channel).
    pub(crate) fn patches(
        &mut self,
        scope: &Scope<'_>,
        [outputs, inputs, size]: [usize; 3],
    ) -> Result<Linear> {
        self.cancel.check()?;
        let weight = scope.tensor("weight", &[outputs, inputs, size, size])?;
        let bias = scope.tensor("bias", &[outputs])?;
        let kept = if self.names_only { 1 } else { outputs };
        let rows = weight.view().narrow(0, 0, kept)?.permute(&[0, 2, 3, 1])?;
        let rows = rows.to_tensor()?.reshape([kept, size * size * inputs])?;
        let bias_view = bias.view().narrow(0, 0, kept)?;
        let linear = Linear::pack(rows.view(), Some(bias_view), self.dtype, &self.device)?;
        let columns = weight.numel() / outputs.max(1);
        self.count(linear.form(), outputs, columns, outputs);
        self.done(scope, "weight", &weight);
        self.done(scope, "bias", &bias);
        Ok(linear)
    }

    /// Reads a vector, such as the scale of a norm, as f32.
    pub(crate) fn vector(&mut self, scope: &Scope<'_>, name: &str, len: usize) -> Result<Tensor> {
        self.small(scope, name, &[len])
    }

    /// Reads a small tensor as f32.
    pub(crate) fn small(
        &mut self,
        scope: &Scope<'_>,
        name: &str,
        shape: &[usize],
    ) -> Result<Tensor> {
        self.cancel.check()?;
        let stored = scope.tensor(name, shape)?;
        let packed = match (self.names_only, stored.dtype()) {
            (true, _) => Tensor::zeros([1], DType::F32, &self.device)?,
            (false, DType::F32) => stored.view().to_tensor()?,
            (false, _) => stored.to_dtype(DType::F32)?,
        };
        let form = WeightForm::Dense(packed.dtype());
        self.count(form, stored.numel(), 1, 0);
        self.done(scope, name, &stored);
        Ok(packed.to_device(&self.device)?)
    }

    /// Returns a table of which few rows are read, in its stored form. It stays mapped and takes no memory of its own.
    pub(crate) fn table(
        &mut self,
        scope: &Scope<'_>,
        name: &str,
        shape: &[usize],
    ) -> Result<Tensor> {
        self.cancel.check()?;
        let stored = scope.tensor(name, shape)?;
        let form = WeightForm::Dense(stored.dtype());
        self.count(form, stored.numel(), 1, 0);
        self.done(scope, name, &stored);
        Ok(stored.to_device(&self.device)?)
    }

    fn done(&mut self, scope: &Scope<'_>, name: &str, stored: &Tensor) {
        scope.release(name);
        if let Some(on_packed) = &mut self.on_packed {
            on_packed((stored.numel() * stored.dtype().size()) as u64);
        }
    }
}
