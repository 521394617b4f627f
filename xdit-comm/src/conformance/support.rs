//! The shared code of the tests.

use crate::{Error, Result, Spec};
use xdit_kernels::{DType, Device, Tensor};

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
    Ok(Tensor::from_slice(&data, [len], &Device::cpu())?)
}

pub(super) fn spec(len: usize) -> Spec {
    Spec::new([len], DType::F32)
}

pub(super) fn same(op: &str, got: &Tensor, want: &Tensor) -> Result<()> {
    let equal = got.shape() == want.shape()
        && got.dtype() == want.dtype()
        && got.host_bytes_blocking()? == want.host_bytes_blocking()?;
    ensure(equal, || {
        format!(
            "{op}: got {:?}, want {:?}",
            got.to_vec_blocking::<f32>(),
            want.to_vec_blocking::<f32>()
        )
    })
}
