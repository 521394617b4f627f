//! Operands for one call of a kernel.

use crate::{DType, Device, Tensor, TensorMut, attention::AttnOut};
use std::cell::Cell;

/// Operands for one call, all on one device but for one of them.
pub(crate) struct Operands<'a> {
    pub(crate) device: &'a Device,
    pub(crate) other: &'a Device,
    /// Which operand is on the other device.
    pub(crate) odd: usize,
    pub(crate) made: Cell<usize>,
    /// The size of the first dim: 0 makes empty tensors.
    pub(crate) n: usize,
}

impl Operands<'_> {
    /// The next operand's device.
    pub(crate) fn device(&self) -> &Device {
        let index = self.made.replace(self.made.get() + 1);
        match index == self.odd {
            true => self.other,
            false => self.device,
        }
    }

    pub(crate) fn tensor(&self, shape: &[usize]) -> Tensor {
        self.of(shape, DType::F32)
    }

    pub(crate) fn of(&self, shape: &[usize], dtype: DType) -> Tensor {
        Tensor::zeros(shape, dtype, self.device()).unwrap()
    }

    pub(crate) fn rows(&self) -> Tensor {
        self.tensor(&[self.n, 4])
    }

    pub(crate) fn rows_out(&self) -> TensorMut {
        self.output(&[self.n, 4])
    }

    pub(crate) fn tokens(&self) -> Tensor {
        self.tensor(&[self.n, 2, 4])
    }

    pub(crate) fn vector(&self) -> Tensor {
        self.tensor(&[4])
    }

    pub(crate) fn output(&self, shape: &[usize]) -> TensorMut {
        TensorMut::zeros(shape, DType::F32, self.device()).unwrap()
    }

    pub(crate) fn bytes(&self, shape: &[usize]) -> TensorMut {
        TensorMut::zeros(shape, DType::U8, self.device()).unwrap()
    }

    pub(crate) fn attention(&self) -> AttnOut {
        AttnOut {
            out: self.tensor(&[self.n, 2, 1, 4]),
            lse: self.tensor(&[self.n, 1, 2]),
        }
    }
}
