//! Attributes and parameters of kernels.

use std::ffi::c_int;

use crate::api::calls::api;
use crate::arguments::Out;
use crate::codes::{self, Res};
use crate::engine::engine;
use crate::handles::{FUNCTION, index};
use crate::state::{FunctionState, State};

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES` and `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`
const MOST_DYNAMIC: c_int = 8;
const CARVEOUT: c_int = 9;

pub(crate) fn function_index(state: &State, function: u64) -> Res<usize> {
    let function = index(FUNCTION, function, state.functions.len())?;
    if state.modules[state.functions[function].module].loaded {
        Ok(function)
    } else {
        Err(codes::INVALID_HANDLE)
    }
}

impl State {
    pub(crate) fn entry(&self, function: &FunctionState) -> &ptx_interp::Entry {
        &self.modules[function.module].module.entries()[function.entry]
    }
}

api! {
    fn cuFuncGetAttribute(value: Out<c_int>, attribute: c_int, function: u64) {
        let state = engine()?.lock();
        let function = &state.functions[function_index(&state, function)?];
        let entry = state.entry(function);
        let (major, minor) = state.config.capability;
        value.set(match attribute {
            0 => entry.max_threads().unwrap_or(1024) as c_int,
            1 => entry.static_shared() as c_int,
            2 => 0,
            3 => entry.local_bytes() as c_int,
            // The interpreter knows virtual registers only. This is what a kernel gets that asks for nothing.
            4 => 64,
            5 | 6 => (major * 10 + minor) as c_int,
            7 => 0,
            MOST_DYNAMIC => function.most_dynamic as c_int,
            CARVEOUT => -1,
            _ => return Err(codes::INVALID_VALUE),
        })
    }

    fn cuFuncSetAttribute(function: u64, attribute: c_int, value: c_int) {
        let mut state = engine()?.lock();
        let function = function_index(&state, function)?;
        let entry = state.entry(&state.functions[function]);
        let most = state.config.most_shared().saturating_sub(entry.static_shared());
        let name = entry.name().to_owned();
        match (attribute, usize::try_from(value)) {
            (MOST_DYNAMIC, Ok(bytes)) if bytes <= most => {
                state.functions[function].most_dynamic = bytes;
                Ok(())
            }
            (MOST_DYNAMIC, _) => {
                let text = format!("kernel {name}: {value} bytes of dynamic shared memory; {most} are possible");
                state.refuse(codes::INVALID_VALUE, text)
            }
            (CARVEOUT, _) => Ok(()),
            _ => Err(codes::INVALID_VALUE),
        }
    }

    fn cuFuncSetCacheConfig(function: u64, _config: c_int) {
        function_index(&engine()?.lock(), function).map(|_| ())
    }

    /// Drivers have this from 12.4 on.
    fn cuFuncGetParamInfo(function: u64, number: usize, offset: Out<usize>, size: Out<usize>) {
        let state = engine()?.lock();
        let function = &state.functions[function_index(&state, function)?];
        let param = state.entry(function).params().get(number).ok_or(codes::INVALID_VALUE)?;
        offset.set_if_wanted(param.offset);
        size.set_if_wanted(param.size);
        Ok(())
    }
}
