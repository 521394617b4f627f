//! Occupancy, from threads and shared memory alone: the interpreter does not know registers.

use std::ffi::{c_int, c_uint};

use crate::api::calls::api;
use crate::api::functions::function_index;
use crate::arguments::Out;
use crate::codes::{self, Res};
use crate::engine::engine;

/// Threads and blocks of a multiprocessor, and the shared memory that the system keeps of each block.
const THREADS: usize = 2048;
const BLOCKS: usize = 32;
const SYSTEM: usize = 1024;

fn active_blocks(blocks: &Out<c_int>, function: u64, threads: c_int, dynamic: usize) -> Res {
    let state = engine()?.lock();
    let function = &state.functions[function_index(&state, function)?];
    let threads = usize::try_from(threads)
        .ok()
        .filter(|t| (1..=1024).contains(t));
    let threads = threads.ok_or(codes::INVALID_VALUE)?.next_multiple_of(32);
    let shared = state.entry(function).static_shared() + dynamic + SYSTEM;
    let most = (state.config.most_shared() + SYSTEM) / shared;
    blocks.set((THREADS / threads).min(BLOCKS).min(most) as c_int)
}

api! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<c_int>, function: u64, threads: c_int, dynamic: usize) {
        active_blocks(&blocks, function, threads, dynamic)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: Out<c_int>, function: u64, threads: c_int, dynamic: usize, _flags: c_uint) {
        active_blocks(&blocks, function, threads, dynamic)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: Out<usize>, function: u64, blocks: c_int, _threads: c_int) {
        let state = engine()?.lock();
        let function = &state.functions[function_index(&state, function)?];
        let blocks = usize::try_from(blocks).ok().filter(|blocks| *blocks > 0);
        let each = (state.config.most_shared() + SYSTEM) / blocks.ok_or(codes::INVALID_VALUE)?;
        bytes.set(each.saturating_sub(SYSTEM + state.entry(function).static_shared()))
    }
}
