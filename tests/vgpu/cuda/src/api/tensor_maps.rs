//! Descriptors of tensors, for copies by the asynchronous unit.

use std::ffi::c_uint;

use ptx_interp::{Swizzle, TensorMap};

use crate::api::calls::api;
use crate::arguments::{In, Out};
use crate::codes;
use crate::engine::engine;

/// The bytes of an element of a `CUtensorMapDataType`.
fn element(kind: c_uint) -> Option<usize> {
    Some(match kind {
        0 => 1,                        // u8
        1 | 6 | 9 => 2,                // u16, f16, bf16
        2 | 3 | 7 | 10 | 11 | 12 => 4, // u32, s32, f32, f32 with flushing, tf32
        4 | 5 | 8 => 8,                // u64, s64, f64
        _ => return None,
    })
}

api! {
    fn cuTensorMapEncodeTiled(
        map: Out<[u8; 128]>,
        kind: c_uint,
        rank: c_uint,
        address: u64,
        dims: In<u64>,
        strides: In<u64>,
        tile: In<u32>,
        element_strides: In<u32>,
        interleave: c_uint,
        swizzle: c_uint,
        _promotion: c_uint,
        fill: c_uint,
    ) {
        let engine = engine()?;
        let refuse = |code, why: String| {
            engine.lock().refuse(code, format!("cuTensorMapEncodeTiled: {why}"))
        };
        if !map.address().is_multiple_of(64) {
            return refuse(codes::INVALID_VALUE, "the descriptor is not aligned to 64 bytes".into());
        }
        let rank = rank as usize;
        if !(1..=5).contains(&rank) {
            return refuse(codes::INVALID_VALUE, format!("{rank} dims"));
        }
        let swizzle = match swizzle {
            0 => Swizzle::None,
            1 => Swizzle::Bytes32,
            2 => Swizzle::Bytes64,
            3 => Swizzle::Bytes128,
            other => return refuse(codes::NOT_SUPPORTED, format!("swizzle {other}")),
        };
        let Some(element) = element(kind) else {
            return refuse(codes::NOT_SUPPORTED, format!("type {kind}"));
        };
        let steps = element_strides.list(rank)?;
        if interleave != 0 || fill != 0 || steps.iter().any(|step| *step != 1) {
            let text = "the double knows neither interleaving nor fills with NaN nor strides of elements";
            return refuse(codes::NOT_SUPPORTED, text.to_owned());
        }
        let tensor = TensorMap {
            address,
            element,
            dims: dims.list(rank)?,
            strides: strides.list(rank - 1)?,
            tile: tile.list(rank)?,
            swizzle,
        };
        let encoded = match tensor.encode() {
            Ok(encoded) => encoded,
            Err(error) => return refuse(codes::INVALID_VALUE, error.to_string()),
        };
        let outer = tensor.dims[1..].iter().zip(&tensor.strides);
        let last: u64 = outer.map(|(dim, stride)| (dim - 1) * stride).sum();
        let bytes = last + tensor.dims[0] * element as u64;
        if let Err(fault) = engine.heap.locate(address, bytes as usize) {
            return refuse(codes::INVALID_VALUE, fault.to_string());
        }
        map.set(encoded)
    }
}
