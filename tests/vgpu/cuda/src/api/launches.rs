//! Launches of kernels.

use std::ffi::c_uint;
use std::sync::Arc;

use ptx_interp::Entry;

use crate::api::calls::api;
use crate::api::current::stream_index;
use crate::api::functions::function_index;
use crate::arguments::readable;
use crate::codes::{self, Res};
use crate::engine::{Engine, engine};
use crate::records::Life;
use crate::state::State;
use crate::work::{KernelLaunch, Work};

/// Blocks and threads, in x, y and z.
#[derive(Clone, Copy)]
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared: c_uint,
}

/// A number that a launch argument holds, or why it is not there.
fn number(address: u64) -> Option<u64> {
    let bytes = readable(usize::try_from(address).ok()?, 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The parameters of a kernel from an array of pointers to them. The call tells neither how many there are nor their sizes,
/// so what can be checked is that memory is readable.
fn from_pointers(entry: &Entry, pointers: u64) -> Result<Vec<u8>, String> {
    let mut out = vec![0; entry.param_bytes()];
    let count = entry.params().len();
    for (index, param) in entry.params().iter().enumerate() {
        let argument = number(pointers + 8 * index as u64).filter(|_| pointers != 0);
        let bytes = argument
            .filter(|argument| *argument != 0)
            .and_then(|argument| readable(argument as usize, param.size));
        let Some(bytes) = bytes else {
            return Err(format!(
                "argument {index} of {count} ({} bytes) cannot be read; were all arguments passed?",
                param.size
            ));
        };
        out[param.offset..param.offset + param.size].copy_from_slice(&bytes);
    }
    Ok(out)
}

/// The parameters from a buffer: pairs of a key and a value, up to a zero (`CU_LAUNCH_PARAM_*`).
fn from_buffer(entry: &Entry, extra: u64) -> Result<Vec<u8>, String> {
    let unreadable = || "`extra` cannot be read".to_owned();
    let (mut buffer, mut size, mut at) = (0, 0, extra);
    loop {
        let key = number(at).ok_or_else(unreadable)?;
        if key == 0 {
            break;
        }
        let value = number(at + 8).ok_or_else(unreadable)?;
        match key {
            1 => buffer = value,
            2 => size = number(value).ok_or_else(unreadable)?,
            _ => return Err(format!("`extra` has the key {key}")),
        }
        at += 16;
    }
    let wanted = entry.param_bytes();
    if size != wanted as u64 {
        return Err(format!(
            "{size} bytes of parameters; the kernel has {wanted}"
        ));
    }
    readable(buffer as usize, wanted).ok_or_else(unreadable)
}

impl Engine {
    /// Pointers among the parameters must point into allocations that live, or be null.
    fn check_pointers(
        &self,
        state: &State,
        pointers: &[usize],
        params: &[u8],
    ) -> Result<(), String> {
        for &offset in pointers {
            let bytes = params.get(offset..offset + 8).unwrap_or_default();
            let pointer = bytes
                .iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte));
            if pointer == 0 {
                continue;
            }
            let what = format!("the pointer at byte {offset} of the parameters, {pointer:#x},");
            let Some(slot) = self.heap.find_or_end(pointer) else {
                return Err(format!("{what} points to no allocation"));
            };
            match state.records[slot.id].life {
                Life::Live => {}
                Life::FreeQueued | Life::Freed(_) => {
                    let place = slot.place((pointer - slot.base) as usize);
                    return Err(format!("use after free: {what} points to {place}"));
                }
            }
        }
        Ok(())
    }

    fn launch(&self, function: u64, shape: Shape, stream: u64, pointers: u64, extra: u64) -> Res {
        let stream = stream_index(stream)?;
        self.before_operation();
        let mut state = self.lock();
        let function = function_index(&state, function)?;
        let (module, index, most_dynamic) = {
            let function = &state.functions[function];
            (function.module, function.entry, function.most_dynamic)
        };
        let loaded = &state.modules[module];
        let entry = &loaded.module.entries()[index];
        let what = format!("kernel {}", entry.name());
        let params = if extra == 0 {
            from_pointers(entry, pointers)
        } else {
            from_buffer(entry, extra)
        };
        let checked = check_shape(&state, entry, shape, most_dynamic)
            .and_then(|()| {
                if loaded.device == state.streams[stream].device {
                    Ok(())
                } else {
                    Err("its module and the stream belong to different devices".to_owned())
                }
            })
            .and(params)
            .and_then(|params| {
                self.check_pointers(&state, &loaded.pointers[index], &params)?;
                Ok(params)
            });
        let params = match checked {
            Ok(params) => params,
            Err(text) => {
                return state.refuse(codes::INVALID_VALUE, format!("{what}: {text}"));
            }
        };
        let kernel = KernelLaunch {
            module: Arc::clone(&loaded.module),
            entry: index,
            grid: shape.grid,
            block: shape.block,
            shared_bytes: shape.shared as usize,
            params,
            variables: Arc::clone(&loaded.variables),
        };
        state.enqueue(stream, Work::Kernel(Arc::new(kernel)), what)?;
        self.run_some(state);
        Ok(())
    }
}

/// What a driver checks of the shape of a launch.
fn check_shape(
    state: &State,
    entry: &Entry,
    shape: Shape,
    most_dynamic: usize,
) -> Result<(), String> {
    let Shape {
        grid,
        block,
        shared,
    } = shape;
    let within =
        |dims: [u32; 3], most: [u32; 3]| dims.iter().zip(most).all(|(d, m)| (1..=m).contains(d));
    if !within(grid, [i32::MAX as u32, 65535, 65535]) {
        return Err(format!("a grid of {grid:?} blocks is not possible"));
    }
    let threads: u64 = block.iter().map(|d| u64::from(*d)).product();
    let most = u64::from(entry.max_threads().unwrap_or(1024).min(1024));
    if !within(block, [1024, 1024, 64]) || threads > most {
        return Err(format!(
            "a block of {block:?} threads is not possible; the kernel allows {most} threads"
        ));
    }
    let shared = shared as usize;
    if shared > most_dynamic {
        return Err(format!(
            "{shared} bytes of dynamic shared memory; the program allowed {most_dynamic} (MAX_DYNAMIC_SHARED_SIZE_BYTES)"
        ));
    }
    let all = shared + entry.static_shared();
    let most = if most_dynamic > 48 << 10 {
        state.config.most_shared()
    } else {
        48 << 10
    };
    if all > most {
        return Err(format!("{all} bytes of shared memory; {most} are possible"));
    }
    Ok(())
}

api! {
    fn cuLaunchKernel(
        function: u64,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: u64,
        pointers: u64,
        extra: u64,
    ) {
        let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared };
        engine()?.launch(function, shape, stream, pointers, extra)
    }
}
