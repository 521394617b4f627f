//! Handles: numbers with a tag, so that one of a wrong kind is refused.

use crate::codes::{self, Res};

pub(crate) const CONTEXT: u64 = 0xc0 << 32;
pub(crate) const STREAM: u64 = 0x57 << 32;
pub(crate) const EVENT: u64 = 0xe7 << 32;
pub(crate) const MODULE: u64 = 0x3d << 32;
pub(crate) const FUNCTION: u64 = 0xf2 << 32;
pub(crate) const GRAPH: u64 = 0x69 << 32;
pub(crate) const EXECUTABLE: u64 = 0x6e << 32;
pub(crate) const POOL: u64 = 0x90 << 32;

/// The handle of the thing with an index.
pub(crate) fn handle(tag: u64, index: usize) -> u64 {
    tag | index as u64
}

/// The index in a handle, below `len`.
pub(crate) fn index(tag: u64, handle: u64, len: usize) -> Res<usize> {
    let index = (handle & 0xffff_ffff) as usize;
    if handle & !0xffff_ffff == tag && index < len {
        Ok(index)
    } else {
        Err(codes::INVALID_HANDLE)
    }
}
