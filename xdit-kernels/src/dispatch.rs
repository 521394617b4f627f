//! What every kernel checks of its operands' devices before it is dispatched to one of them.

use crate::{Device, DeviceKind, Error, Result};

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

#[cfg(test)]
mod tests {
    use crate::{
        DType, Device, Tensor, Tier, elementwise::add, norm::layer_norm, testing::test_devices,
    };

    #[test]
    fn operands_of_two_devices_are_an_error_that_names_both() {
        let portable = Device::cpu_with(Tier::Portable).unwrap();
        let tensor =
            |shape: &[usize], device: &Device| Tensor::zeros(shape, DType::F32, device).unwrap();
        let x = tensor(&[2, 3], &portable);
        for other in test_devices().iter().filter(|other| **other != portable) {
            let y = tensor(&[2, 3], other);
            let message = add(&x, &y).unwrap_err().to_string();
            assert!(
                message.starts_with("add: all operands must be on one device")
                    && message.contains(&portable.to_string())
                    && message.contains(&other.to_string()),
                "{message}"
            );
            let weight = tensor(&[3], other);
            assert!(layer_norm(&x, Some(weight.view()), None, 0.0).is_err());
            // The same memory, of the other's device: no copy, and no error.
            let moved = x.to_device(other).unwrap();
            assert_eq!(moved.view().ptr(), x.view().ptr());
            assert!(add(&moved, &y).is_ok());
        }
        let fork = tensor(&[2, 3], &portable.fork());
        assert!(add(&x, &fork).is_ok(), "a fork is the same device");
    }
}
