//! Copies and fills.

use std::ffi::c_uint;

use crate::api::calls::api;
use crate::api::current::{context_device, current_device, stream_index};
use crate::arguments::In;
use crate::codes::{self, Res};
use crate::engine::{Engine, engine};
use crate::execute::read_host;
use crate::work::{HostSide, Rect, Source, Work};

impl Engine {
    /// Memory of the host as an operation uses it later, if it is pinned, and whether no unfinished operation uses it now.
    fn host_side(&self, rect: Rect) -> (HostSide, bool) {
        let state = self.lock();
        let pinned = state.pinned(rect.address, rect.extent());
        let user = pinned.and_then(|(id, at)| state.pinned_user(id, at, rect.extent()));
        (HostSide { rect, pinned }, user.is_none())
    }

    fn is_capturing(&self, stream: usize) -> bool {
        self.lock().streams[stream].capture.is_some()
    }

    /// From the host to a device. Memory that is not pinned is read by the call.
    fn upload(&self, stream: usize, to: Rect, from: Rect) -> Res {
        let (side, unused) = self.host_side(from);
        let source = if self.is_capturing(stream) {
            Source::Pinned(side, None)
        } else if side.pinned.is_none() {
            Source::Taken(read_host(&from).into())
        } else {
            let before = unused.then(|| read_host(&from).into());
            Source::Pinned(side, before)
        };
        let label = format!("host-to-device copy of {} bytes", from.bytes());
        self.submit(stream, Work::Upload(to, source), label)
            .map(|_| ())
    }

    /// From a device to the host. If the memory is not pinned, the call returns when the bytes are there.
    fn download(&self, stream: usize, to: Rect, from: Rect) -> Res {
        let (side, _) = self.host_side(to);
        let pageable = side.pinned.is_none();
        let label = format!("device-to-host copy of {} bytes", from.bytes());
        let operation = self.submit(stream, Work::Download(side, from), label)?;
        match operation.filter(|_| pageable) {
            Some(operation) => self.synchronize_operation(&operation),
            None => Ok(()),
        }
    }

    fn copy(&self, stream: usize, to: Rect, from: Rect) -> Res {
        let label = format!("device-to-device copy of {} bytes", from.bytes());
        self.submit(stream, Work::Copy(to, from), label).map(|_| ())
    }

    fn fill(&self, stream: u64, to: u64, value: u8, len: usize) -> Res {
        let label = format!("memset of {len} bytes");
        self.submit(
            stream_index(stream)?,
            Work::Fill(Rect::row(to, len), value),
            label,
        )
        .map(|_| ())
    }

    /// The memory of a peer copy must belong to the contexts that the call names.
    fn peer_copy(&self, stream: usize, to: (u64, u64), from: (u64, u64), len: usize) -> Res {
        for (pointer, context) in [to, from] {
            let mut state = self.lock();
            let device = context_device(&state, context)?;
            let owner = self.heap.find_or_end(pointer).map(|slot| slot.device);
            if owner.is_some_and(|owner| owner != device) {
                let text = format!("cuMemcpyPeer: {pointer:#x} is not memory of device {device}");
                return state.refuse(codes::INVALID_VALUE, text);
            }
        }
        self.copy(stream, Rect::row(to.0, len), Rect::row(from.0, len))
    }

    fn copy_rectangle(&self, stream: usize, copy: &Rectangles) -> Res {
        let (from, from_host) = copy.from.rect(copy.width, copy.height)?;
        let (to, to_host) = copy.to.rect(copy.width, copy.height)?;
        for rect in [&to, &from] {
            if rect.height > 1 && rect.pitch < rect.width {
                let text = format!(
                    "cuMemcpy2D: a row has {} bytes, and the next begins {} bytes behind it",
                    rect.width, rect.pitch
                );
                return self.lock().refuse(codes::INVALID_VALUE, text);
            }
        }
        match (to_host, from_host) {
            (false, true) => self.upload(stream, to, from),
            (true, false) => self.download(stream, to, from),
            (false, false) => self.copy(stream, to, from),
            (true, true) => {
                let text = "cuMemcpy2D from the host to the host: the double does not know it";
                self.lock().refuse(codes::NOT_SUPPORTED, text.to_owned())
            }
        }
    }
}

/// One side of a `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RectangleSide {
    x_bytes: usize,
    y: usize,
    kind: c_uint,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

impl RectangleSide {
    /// The rectangle, and whether it is memory of the host.
    fn rect(&self, width: usize, height: usize) -> Res<(Rect, bool)> {
        let (base, host) = match self.kind {
            1 => (self.host, true),
            2 => (self.device, false),
            _ => return Err(codes::NOT_SUPPORTED),
        };
        let pitch = if self.pitch == 0 { width } else { self.pitch };
        let rect = Rect {
            address: base + (self.y * pitch + self.x_bytes) as u64,
            width,
            height,
            pitch,
        };
        Ok((rect, host))
    }
}

/// A `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rectangles {
    from: RectangleSide,
    to: RectangleSide,
    width: usize,
    height: usize,
}

/// A copy that returns when it is complete.
fn finished(copy: impl FnOnce(&Engine, usize) -> Res) -> Res {
    let (engine, stream) = (engine()?, legacy()?);
    copy(engine, stream)?;
    engine.synchronize_stream(stream)
}

fn legacy() -> Res<usize> {
    current_device()?;
    stream_index(0)
}

api! {
    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, len: usize, stream: u64) {
        engine()?.upload(stream_index(stream)?, Rect::row(to, len), Rect::row(from, len))
    }

    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, len: usize, stream: u64) {
        engine()?.download(stream_index(stream)?, Rect::row(to, len), Rect::row(from, len))
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: u64) {
        engine()?.copy(stream_index(stream)?, Rect::row(to, len), Rect::row(from, len))
    }

    fn cuMemcpyPeerAsync(to: u64, to_context: u64, from: u64, from_context: u64, len: usize, stream: u64) {
        let stream = stream_index(stream)?;
        engine()?.peer_copy(stream, (to, to_context), (from, from_context), len)
    }

    fn cuMemcpy2DAsync_v2(copy: In<Rectangles>, stream: u64) {
        engine()?.copy_rectangle(stream_index(stream)?, &copy.at(0)?)
    }

    fn cuMemcpyHtoD_v2(to: u64, from: u64, len: usize) {
        finished(|engine, stream| engine.upload(stream, Rect::row(to, len), Rect::row(from, len)))
    }

    fn cuMemcpyDtoH_v2(to: u64, from: u64, len: usize) {
        finished(|engine, stream| engine.download(stream, Rect::row(to, len), Rect::row(from, len)))
    }

    /// Returns before the copy is complete, as a driver's does.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, len: usize) {
        engine()?.copy(legacy()?, Rect::row(to, len), Rect::row(from, len))
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: u64) {
        engine()?.fill(stream, to, value, count)
    }

    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        current_device()?;
        engine()?.fill(0, to, value, count)
    }
}
