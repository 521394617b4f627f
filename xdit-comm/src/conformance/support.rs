//! What the checks share.

use crate::{Error, Result, Spec};
use xdit_kernels::{DType, Tensor};

pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Kernel(what()))
    }
}

/// `len` numbers that tell their maker.
pub(super) fn numbers(from: usize, len: usize) -> Result<Tensor> {
    let data: Vec<f32> = (0..len).map(|i| (from * 1000 + i) as f32).collect();
    Ok(Tensor::from_slice(&data, [len])?)
}

pub(super) fn spec(len: usize) -> Spec {
    Spec::new([len], DType::F32)
}

pub(super) fn same(op: &str, got: &Tensor, want: &Tensor) -> Result<()> {
    let equal = got.shape() == want.shape()
        && got.dtype() == want.dtype()
        && got.as_bytes() == want.as_bytes();
    ensure(equal, || {
        format!(
            "{op}: got {:?}, want {:?}",
            got.to_f32_vec(),
            want.to_f32_vec()
        )
    })
}
