//! Linear layers by cuBLASLt. The bias and GELU with tanh are part of the product; the product of another epilogue is rounded
//! to the dtype of its output first, as torch does.

use super::epilogue::{Epilogue, batch};
use crate::{
    DType, Device, Error, Result, Shape, Tensor, TensorMut, View, ViewMut,
    activation::{Activation, activation_into},
    cuda::{FusedActivation, ProductOperands, ProductShape},
    elementwise::{add_into, gate_residual, gate_residual_into, mul_into},
    layout,
};

const OP: &str = "linear";

/// Weights `[n, k]` and bias `[n]` in one dtype, as torch has them.
#[derive(Debug)]
pub(super) struct CudaLinear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl CudaLinear {
    /// The layers of `parts` one after another. The parts are on `device` or in the host's memory, and then copied; both are
    /// checked by the caller.
    pub(super) fn new(
        parts: &[(View<'_>, Option<View<'_>>)],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let weights = parts
            .iter()
            .map(|(weight, _)| moved(*weight, dtype, device));
        let weight = joined(weights.collect::<Result<_>>()?)?;
        let has_bias = parts.iter().any(|(_, bias)| bias.is_some());
        let biases = parts.iter().map(|(weight, bias)| match bias {
            Some(bias) => moved(*bias, dtype, device),
            None => Tensor::zeros([weight.dim(0)], dtype, device),
        });
        let bias = has_bias.then(|| joined(biases.collect::<Result<_>>()?));
        Ok(Self {
            weight,
            bias: bias.transpose()?,
        })
    }

    pub(super) fn byte_len(&self) -> usize {
        self.weight.byte_len() + self.bias.as_ref().map_or(0, Tensor::byte_len)
    }
}

/// A copy in a dtype on a GPU. What lies in the host's memory is converted there, as the processor's kernels do.
fn moved(x: View<'_>, dtype: DType, device: &Device) -> Result<Tensor> {
    if x.device().is_cpu() && x.is_contiguous() {
        return Tensor::uploaded_as(x, dtype, device);
    }
    layout::cast(x, dtype)?.to_device(device)
}

fn joined(mut parts: Vec<Tensor>) -> Result<Tensor> {
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    let views: Vec<View<'_>> = parts.iter().map(Tensor::view).collect();
    layout::cat(&views, 0)
}

/// Writes the layer of `x` with its epilogue into `out`, whose shape is `shape` and has elements.
pub(super) fn linear(
    layer: &CudaLinear,
    x: &[View<'_>],
    epilogue: Epilogue<'_>,
    shape: &Shape,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let (dtype, own, device) = (out.dtype(), layer.weight.dtype(), out.device());
    let joined;
    let x = match x {
        [x] if x.dtype() == own && row_distance(x.shape(), x.strides()).is_some() => *x,
        _ => {
            joined = side_by_side(x, own, device)?;
            joined.view()
        }
    };
    let fused = match epilogue {
        Epilogue::None => FusedActivation::None,
        Epilogue::Activation(Activation::GeluTanh) => FusedActivation::Gelu,
        _ => {
            let product = product(layer, x, FusedActivation::None, shape, dtype, device)?;
            return finish(product, epilogue, shape, out);
        }
    };
    match row_distance(out.shape(), out.strides()) {
        Some(distance) if dtype == own || dtype == DType::F32 => {
            product_into(layer, x, fused, dtype, distance, out.ptr(), device)
        }
        _ => layout::copy_into(&product(layer, x, fused, shape, dtype, device)?, out),
    }
}

/// The inputs in one dtype, side by side along the last dim.
fn side_by_side(x: &[View<'_>], dtype: DType, device: &Device) -> Result<Tensor> {
    if let [x] = x {
        return layout::cast(x.on(device), dtype);
    }
    let views: Vec<View<'_>> = x.iter().map(|x| x.on(device)).collect();
    layout::cat_as(&views, x[0].ndim() - 1, dtype)
}

/// The distance of neighbouring rows, in elements, if it is the same for all and the elements of a row are adjacent.
fn row_distance(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let (&width, lead) = shape.split_last()?;
    if width > 1 && strides.last() != Some(&1) {
        return None;
    }
    let mut dims = (lead.iter().zip(strides)).rev().filter(|&(&n, _)| n != 1);
    let Some((&n, &distance)) = dims.next() else {
        return Some(width);
    };
    let mut next = n * distance;
    for (&n, &stride) in dims {
        if stride != next {
            return None;
        }
        next = n * stride;
    }
    (distance >= width).then_some(distance)
}

/// The product as a tensor of this shape and dtype, on the queue of `device`.
fn product(
    layer: &CudaLinear,
    x: View<'_>,
    fused: FusedActivation,
    shape: &Shape,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let n = layer.weight.dim(0);
    // The library writes the dtype of the weights, or f32.
    let written = match dtype == layer.weight.dtype() {
        true => dtype,
        false => DType::F32,
    };
    // SAFETY: the product writes every element.
    let mut out = unsafe { TensorMut::uninit(OP, *shape, written, device)? };
    product_into(layer, x, fused, written, n, out.view_mut().ptr(), device)?;
    out.freeze().to_dtype(dtype)
}

/// Writes the product to rows of `dtype` that begin at `out` and are `distance` elements apart.
fn product_into(
    layer: &CudaLinear,
    x: View<'_>,
    activation: FusedActivation,
    dtype: DType,
    distance: usize,
    out: *mut u8,
    device: &Device,
) -> Result<()> {
    let &[n, k] = layer.weight.shape() else {
        unreachable!("weights have two dims")
    };
    if k == 0 {
        return Err(Error::shape(OP, "inputs of at least one element", x));
    }
    let cast;
    let bias = match &layer.bias {
        Some(bias) if bias.dtype() != dtype => {
            cast = layout::cast(bias.view().on(device), dtype)?;
            Some(&cast)
        }
        bias => bias.as_ref(),
    };
    let shape = ProductShape {
        m: x.numel() / k,
        n,
        k,
        x_stride: row_distance(x.shape(), x.strides()).unwrap_or(k),
        y_stride: distance,
        dtype: layer.weight.dtype(),
        y_dtype: dtype,
        activation,
    };
    let operands = ProductOperands {
        x: x.ptr(),
        weight: layer.weight.view().ptr(),
        bias: bias.map_or(std::ptr::null(), |b| b.view().ptr()),
        y: out,
    };
    // SAFETY: x has m rows with one distance, the weights n adjacent rows, all of k elements, and the bias n elements; `out` is
    // the caller's, with room for m rows of n elements. All are of this device (checked by the caller).
    unsafe { device.expect_cuda().product(OP, shape, operands) }
}

/// Applies an epilogue that the library does not have to the product.
fn finish(product: Tensor, epilogue: Epilogue<'_>, shape: &Shape, out: ViewMut<'_>) -> Result<()> {
    match epilogue {
        Epilogue::None => layout::copy_into(&product, out),
        Epilogue::Activation(act) => activation_into(&product, act, out),
        Epilogue::Residual(residual) => add_into(&product, residual, out),
        Epilogue::Mul(factor) => mul_into(&product, factor, out),
        Epilogue::GateResidual { gate, residual } => {
            if shape.len() == 3 && residual.dtype() == out.dtype() {
                return gate_residual_into(&product, gate, residual, out);
            }
            let (b, n) = (batch(shape), product.dim(shape.len() - 1));
            let blc = [b, product.numel() / (b * n), n];
            let residual = layout::cast(residual.on(out.device()), out.dtype())?.reshape(blc)?;
            let sum = gate_residual(&product.reshape(blc)?, gate, &residual)?;
            layout::copy_into(&sum.reshape(*shape)?, out)
        }
    }
}
