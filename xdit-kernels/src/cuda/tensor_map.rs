//! Tensor maps: what the asynchronous copy unit of compute capability 9.0 (TMA) knows of a tensor in the GPU's memory.

use super::{context::CudaContext, error::device_error, launch::KernelParam};
use crate::{Result, dtype::FloatType};
use cudarc::driver::sys::{
    CUtensorMapDataType as Type, CUtensorMapFloatOOBfill as Fill,
    CUtensorMapInterleave as Interleave, CUtensorMapL2promotion as Promotion,
    CUtensorMapSwizzle as Swizzle,
};

/// A tensor of four dims, the innermost first, and the box of it that one copy moves. Elements of the first dim are adjacent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boxes {
    /// Where the tensor begins: at a multiple of 16 bytes.
    pub(crate) address: *const u8,
    pub(crate) float: FloatType,
    pub(crate) dims: [u64; 4],
    /// Bytes from one element to the next of each dim but the first: multiples of 16, less than 2^40.
    pub(crate) strides: [u64; 3],
    /// Elements of a box in each dim, 256 at most. Those of the first dim are 64 or 128 bytes: within as many, the copy permutes
    /// chunks of 16 bytes.
    pub(crate) size: [u32; 4],
}

/// As kernels take it by value (`TensorMap` of `wgmma.cuh`). A launch does not see the address in it: [`Args::uses`] tells it.
///
/// [`Args::uses`]: super::launch::Args::uses
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TensorMap([u64; 16]);

// SAFETY: 128 bytes that only the driver and the copy unit understand. The address in them is told by `Args::uses`.
unsafe impl KernelParam for TensorMap {}

impl TensorMap {
    /// # Errors
    /// If the driver refuses the tensor.
    pub(super) fn encode(context: &CudaContext, op: &'static str, boxes: &Boxes) -> Result<Self> {
        let Some(encode) = context.driver.cuTensorMapEncodeTiled else {
            return Err(device_error(op, "the driver has no tensor maps".into()));
        };
        let kind = match boxes.float {
            FloatType::BF16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            FloatType::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            FloatType::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        };
        let row = boxes.size[0] as usize * boxes.float.size();
        let swizzle = match row {
            64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            _ => return Err(device_error(op, format!("boxes of {row} bytes a row"))),
        };
        let mut map = Self([0; 16]);
        context.bind(op)?;
        // SAFETY: the map is 128 bytes at a multiple of 64; the lists have as many numbers as four dims need. The driver notes the
        // address and does not follow it.
        let status = unsafe {
            encode(
                map.0.as_mut_ptr(),
                kind as u32,
                4,
                boxes.address.addr() as u64,
                boxes.dims.as_ptr(),
                boxes.strides.as_ptr(),
                boxes.size.as_ptr(),
                [1u32; 4].as_ptr(),
                Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE as u32,
                swizzle as u32,
                Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B as u32,
                Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE as u32,
            )
        };
        context.check(op, "cuTensorMapEncodeTiled", status)?;
        Ok(map)
    }
}
