//! Copies between the host's memory and a GPU's, in pieces through two pinned buffers: the processor fills one while the GPU
//! reads the other. An upload waits for no copy but the last one out of the buffer that it fills, so the processor prepares the
//! next tensor while the GPU still reads the one before.

use super::{
    blocks::StreamId,
    buffer::CudaBuffer,
    context::CudaContext,
    driver::CudaDriver,
    pinned::{PIECE, PinnedMemory},
    pool::CudaPool,
    stream::{CudaEvent, CudaStream},
};
use crate::{Error, Result};
use cudarc::driver::sys::CUstream;
use std::{
    ffi::c_void,
    sync::{Arc, Mutex, PoisonError},
};

/// Two pinned buffers and the stream of their copies, which runs beside those of kernels. They are made by the first copy.
#[derive(Debug)]
pub(super) struct Staging {
    pool: Arc<CudaPool>,
    line: Mutex<Option<TransferLine>>,
}

#[derive(Debug)]
struct TransferLine {
    stream: Arc<CudaStream>,
    id: StreamId,
    pieces: [PinnedPiece; 2],
    /// The buffer whose turn it is in uploads.
    turn: usize,
}

/// Memory of a GPU that is filled from the host, piece by piece.
#[derive(Debug)]
pub(crate) struct Upload {
    buffer: CudaBuffer,
    filled: usize,
}

/// A pinned buffer of the host's memory, and the copy that uses it.
#[derive(Debug)]
struct PinnedPiece {
    memory: PinnedMemory,
    /// Happens when the last copy that was started has.
    copied: CudaEvent,
    /// Whether nobody has waited for that copy.
    busy: bool,
}

impl Staging {
    pub(super) fn new(pool: &Arc<CudaPool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            line: Mutex::new(None),
        }
    }

    /// How many of the last copies nobody has waited for.
    #[cfg(test)]
    pub(super) fn copies_in_flight(&self) -> usize {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = line.iter().flat_map(|line| &line.pieces);
        pieces.filter(|piece| piece.busy).count()
    }

    /// Runs `copy` with the line, which one caller has at a time.
    fn with_line<R>(
        &self,
        op: &'static str,
        copy: impl FnOnce(&mut TransferLine) -> Result<R>,
    ) -> Result<R> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        copy(match &mut *line {
            Some(line) => line,
            none => none.insert(TransferLine::new(op, &self.pool)?),
        })
    }

    /// New memory of `bytes` bytes, to be filled by [`append`](Self::append) beside what queues were given so far.
    pub(super) fn begin(&self, op: &'static str, bytes: usize) -> Result<Upload> {
        self.with_line(op, |line| {
            // Memory of the line's own stream: nothing but these copies has to be waited for.
            let buffer = CudaBuffer::new(op, bytes, &self.pool, line.id)?;
            Ok(Upload { buffer, filled: 0 })
        })
    }

    /// Copies `bytes` bytes of the host to the next bytes of an upload. They have been read when the call returns; the GPU may
    /// still be copying.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from` in the host's memory (others may change them meanwhile).
    pub(super) unsafe fn append(
        &self,
        op: &'static str,
        upload: &mut Upload,
        from: *const u8,
        bytes: usize,
    ) -> Result<()> {
        let room = upload.buffer.len() - upload.filled;
        if bytes > room {
            return Err(Error::shape(op, format!("at most {room} bytes"), bytes));
        }
        let to = upload.buffer.ptr().addr() as u64 + upload.filled as u64;
        // SAFETY: the caller's promise; the bytes lie in the buffer, behind those that were filled before.
        self.with_line(op, |line| unsafe { line.upload(op, from, to, bytes) })?;
        upload.filled += bytes;
        Ok(())
    }

    /// The memory of an upload. What `queue` is given later runs after the copies.
    pub(super) fn finish(
        &self,
        op: &'static str,
        upload: Upload,
        queue: &CudaStream,
    ) -> Result<CudaBuffer> {
        let Upload { buffer, filled } = upload;
        if filled != buffer.len() {
            return Err(Error::shape(op, format!("{} bytes", buffer.len()), filled));
        }
        if filled > 0 {
            // The buffer that had the last turn; its event is that copy's, or a later one's of the same stream.
            self.with_line(op, |line| {
                let last = (line.turn + line.pieces.len() - 1) % line.pieces.len();
                queue.wait(&line.pieces[last].copied)
            })?;
        }
        Ok(buffer)
    }

    /// Copies `bytes` bytes from the GPU to the host. They have been written when the call returns.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from` in the GPU's memory, where nobody writes until the call returns, and at `to` in the host's,
    /// which nobody else uses.
    pub(super) unsafe fn download(
        &self,
        op: &'static str,
        from: u64,
        to: *mut u8,
        bytes: usize,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.with_line(op, |line| {
            let len = |piece: usize| PIECE.min(bytes - piece * PIECE);
            let count = bytes.div_ceil(PIECE);
            // One copy ahead: while the host reads a piece, the GPU writes the next.
            for piece in 0..=count {
                if piece < count {
                    line.free_piece(piece)?;
                    // SAFETY: the bytes lie in the GPU's memory, and a piece, which no copy uses, has room for them.
                    unsafe {
                        line.start_download(op, piece, from + (piece * PIECE) as u64, len(piece))?;
                    }
                }
                if let Some(done) = piece.checked_sub(1) {
                    let pinned = line.free_piece(done)?;
                    // SAFETY: the copy into the piece has happened, and `to` has room for all pieces.
                    unsafe {
                        std::ptr::copy_nonoverlapping(pinned, to.add(done * PIECE), len(done));
                    }
                }
            }
            Ok(())
        })
    }
}

impl TransferLine {
    fn new(op: &'static str, pool: &CudaPool) -> Result<Self> {
        let piece = || PinnedPiece::new(op, &pool.context);
        let pieces = [piece()?, piece()?];
        let (id, stream) = pool.stream(op)?;
        Ok(Self {
            stream,
            id,
            pieces,
            turn: 0,
        })
    }

    /// Copies to the GPU, piece by piece.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from` in the host's memory and at `to` in the GPU's, which nothing but this line's stream uses.
    unsafe fn upload(
        &mut self,
        op: &'static str,
        from: *const u8,
        to: u64,
        bytes: usize,
    ) -> Result<()> {
        for first in (0..bytes).step_by(PIECE) {
            let (piece, len) = (self.turn, PIECE.min(bytes - first));
            self.turn = (piece + 1) % self.pieces.len();
            let pinned = self.free_piece(piece)?;
            // SAFETY: `first + len` is at most `bytes`, a piece has room for `len`, and no copy uses it.
            unsafe { std::ptr::copy_nonoverlapping(from.add(first), pinned, len) };
            // SAFETY: `len` bytes lie at both places, and the piece stays as it is until the copy has happened.
            unsafe { self.start_upload(op, piece, to + first as u64, len)? };
        }
        Ok(())
    }

    /// The buffer of a piece, once no copy uses it.
    fn free_piece(&mut self, piece: usize) -> Result<*mut u8> {
        let pinned = &mut self.pieces[piece % 2];
        if pinned.busy {
            pinned.copied.synchronize()?;
            pinned.busy = false;
        }
        Ok(pinned.memory.ptr())
    }

    /// Copies from the buffer of a piece to the GPU.
    ///
    /// # Safety
    /// `len` bytes lie at `to`, as [`upload`](Self::upload) demands; `len` is at most [`PIECE`]. The buffer stays as it is until
    /// the copy has happened.
    unsafe fn start_upload(
        &mut self,
        op: &'static str,
        piece: usize,
        to: u64,
        len: usize,
    ) -> Result<()> {
        self.start(op, piece, "cuMemcpyHtoDAsync", |driver, pinned, stream| {
            // SAFETY: the caller's promise; the buffer has `PIECE` bytes.
            unsafe { (driver.cuMemcpyHtoDAsync_v2)(to, pinned.cast_const(), len, stream) }
        })
    }

    /// Copies from the GPU to the buffer of a piece.
    ///
    /// # Safety
    /// `len` bytes lie at `from`, as [`Staging::download`] demands; `len` is at most [`PIECE`]. Nobody touches the buffer until
    /// the copy has happened.
    unsafe fn start_download(
        &mut self,
        op: &'static str,
        piece: usize,
        from: u64,
        len: usize,
    ) -> Result<()> {
        self.start(op, piece, "cuMemcpyDtoHAsync", |driver, pinned, stream| {
            // SAFETY: the caller's promise; the buffer has `PIECE` bytes.
            unsafe { (driver.cuMemcpyDtoHAsync_v2)(pinned, from, len, stream) }
        })
    }

    /// Gives the stream a copy that uses the buffer of a piece, and notes when that has happened.
    fn start(
        &mut self,
        op: &'static str,
        piece: usize,
        function: &str,
        copy: impl FnOnce(&CudaDriver, *mut c_void, CUstream) -> u32,
    ) -> Result<()> {
        let pinned = &mut self.pieces[piece % 2];
        let context = &self.stream.context;
        context.bind(op)?;
        let status = copy(&context.driver, pinned.memory.ptr().cast(), self.stream.raw);
        context.check(op, function, status)?;
        pinned.busy = true;
        let recorded = self.stream.record_again(op, &pinned.copied);
        if recorded.is_err() {
            // No event tells when the buffer is free.
            if let Err(error) = self.stream.synchronize(op) {
                self.stream.note_failure(error);
            }
        }
        recorded
    }
}

impl PinnedPiece {
    fn new(op: &'static str, context: &Arc<CudaContext>) -> Result<Self> {
        Ok(Self {
            memory: PinnedMemory::new(op, context)?,
            copied: CudaEvent::new(op, context)?,
            busy: false,
        })
    }
}

impl Drop for PinnedPiece {
    fn drop(&mut self) {
        if self.busy {
            // If the GPU failed, it does not use the buffer any more.
            drop(self.copied.synchronize());
        }
    }
}
