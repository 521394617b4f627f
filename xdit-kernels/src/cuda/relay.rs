//! Copies between GPUs that do not reach each other's memory: through pinned memory of the host, in pieces. One GPU fills a piece
//! while the other one reads the piece before. Events order the two; no thread waits.

use super::{
    pinned::{PIECE, PinnedMemory},
    stream::{CudaEvent, CudaStream},
};
use crate::Result;
use std::{
    ffi::c_void,
    sync::{Mutex, PoisonError},
};

/// Two pieces of pinned memory, made by the first copy.
#[derive(Debug, Default)]
pub(super) struct Relay(Mutex<Option<[RelayPiece; 2]>>);

#[derive(Debug)]
struct RelayPiece {
    memory: PinnedMemory,
    /// Happens when the receiver of the last bytes has read them.
    read: Option<CudaEvent>,
}

impl Relay {
    /// Copies `bytes` bytes from memory of the first stream's GPU to memory of the second one's, in the order of both streams.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from` and at `to`, in memory of these GPUs that stays until the copy has run. No other stream uses
    /// them, unless events order them.
    pub(super) unsafe fn copy(
        &self,
        op: &'static str,
        streams: [&CudaStream; 2],
        from: u64,
        to: u64,
        bytes: usize,
    ) -> Result<()> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's promise.
        let copied = unsafe { copy_pieces(&mut pieces, op, streams, from, to, bytes) };
        if copied.is_err() {
            // A piece may be in use that nothing notes. No other copy gets it before both streams are done, or their GPU failed.
            for stream in streams {
                if let Err(error) = stream.synchronize(op) {
                    stream.note_failure(error);
                }
            }
        }
        copied
    }
}

/// # Safety
/// As [`Relay::copy`].
unsafe fn copy_pieces(
    pieces: &mut Option<[RelayPiece; 2]>,
    op: &'static str,
    [sender, receiver]: [&CudaStream; 2],
    from: u64,
    to: u64,
    bytes: usize,
) -> Result<()> {
    let pieces = match pieces {
        Some(pieces) => pieces,
        none => {
            let piece = || -> Result<RelayPiece> {
                Ok(RelayPiece {
                    memory: PinnedMemory::new(op, &sender.context)?,
                    read: None,
                })
            };
            none.insert([piece()?, piece()?])
        }
    };
    for (i, first) in (0..bytes).step_by(PIECE).enumerate() {
        let (piece, len) = (&mut pieces[i % 2], PIECE.min(bytes - first));
        if let Some(read) = &piece.read {
            sender.wait(read)?;
        }
        let (host, at) = (piece.memory.ptr().cast::<c_void>(), first as u64);
        let context = &sender.context;
        context.bind(op)?;
        // SAFETY: the caller's promise; the piece has `len` bytes, which nothing reads any more when this runs.
        let status =
            unsafe { (context.driver.cuMemcpyDtoHAsync_v2)(host, from + at, len, sender.raw) };
        context.check(op, "cuMemcpyDtoHAsync", status)?;
        receiver.wait(&sender.record()?)?;
        let context = &receiver.context;
        context.bind(op)?;
        // SAFETY: as above; the piece is filled when this runs, and filled again after `read`.
        let status = unsafe {
            (context.driver.cuMemcpyHtoDAsync_v2)(to + at, host.cast_const(), len, receiver.raw)
        };
        context.check(op, "cuMemcpyHtoDAsync", status)?;
        piece.read = Some(receiver.record()?);
    }
    Ok(())
}

impl Drop for RelayPiece {
    fn drop(&mut self) {
        if let Some(read) = &self.read {
            // If the GPU failed, it does not use the memory any more.
            drop(read.synchronize());
        }
    }
}
