//! What kernels check of their operands before they are dispatched to a device.

use crate::{DType, Device, DeviceKind, Error, Result, View, ViewMut};

/// The device that all operands are on.
///
/// # Errors
/// [`Error::Device`], which names two that differ.
pub(crate) fn one_device<'a>(
    op: &'static str,
    operands: impl IntoIterator<Item = &'a Device>,
) -> Result<DeviceKind> {
    let mut operands = operands.into_iter();
    let Some(first) = operands.next() else {
        return Err(Error::shape(op, "at least one operand", 0));
    };
    match operands.find(|device| *device != first) {
        None => Ok(first.kind()),
        Some(other) => Err(Error::Device {
            op,
            reason: format!(
                "all operands must be on one device, but one is on {first} and one on {other}; \
                 bring them together by Tensor::to_device"
            ),
        }),
    }
}

/// Checks that a parameter has this shape.
///
/// # Errors
/// [`Error::Shape`].
pub(crate) fn expect_parameter(op: &'static str, x: &View<'_>, shape: &[usize]) -> Result<()> {
    if x.shape() == shape {
        return Ok(());
    }
    Err(Error::shape(
        op,
        format!("a parameter of shape {shape:?}"),
        x,
    ))
}

/// Checks that an output has this shape and dtype, kernels compute with the dtype, and its last dim is adjacent.
///
/// # Errors
/// [`Error::Shape`] or [`Error::DType`].
pub(crate) fn expect_rows(
    op: &'static str,
    out: &ViewMut<'_>,
    shape: &[usize],
    dtype: DType,
) -> Result<()> {
    dtype.float(op)?;
    out.expect(op, shape, dtype)?;
    if out.strides().last().is_some_and(|&s| s != 1) {
        return Err(Error::shape(op, "an output with an adjacent last dim", out));
    }
    Ok(())
}

/// The kind of `device`, which is to hold a layer with these weights in a form of its own: the weights are on one device, whose
/// memory `device` reads, or in the host's memory, from which they are copied.
///
/// # Errors
/// [`Error::Device`], which names two devices that differ.
pub(crate) fn readable_by<'a>(
    op: &'static str,
    device: &Device,
    weights: impl IntoIterator<Item = &'a Device>,
) -> Result<DeviceKind> {
    let weights: Vec<&Device> = weights.into_iter().collect();
    match one_device(op, weights.iter().copied())? {
        // All tiers of the processor read the same memory.
        DeviceKind::Cpu(_) => Ok(device.kind()),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => one_device(op, weights.into_iter().chain([device])),
    }
}

#[cfg(feature = "ops")]
#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, elementwise::add, testing::test_devices};

    #[test]
    fn memory_is_shared_between_tiers_and_forks_are_the_same_device() {
        let devices = test_devices();
        for device in &devices {
            let tensor = |device| Tensor::zeros([2, 3], DType::F32, device).unwrap();
            let x = tensor(device);
            for other in &devices {
                let moved = x.to_device(other).unwrap();
                assert_eq!(moved.view().ptr(), x.view().ptr());
                assert!(add(&moved, &tensor(other)).is_ok());
            }
            let fork = device.fork();
            assert!(add(&x, &tensor(&fork)).is_ok());
        }
    }
}
