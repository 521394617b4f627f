//! What an operation does.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ptx_interp::{Entry, Module};

use crate::clock::OpRef;

/// Rows of bytes in memory of a device or the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) address: u64,
    /// Bytes of a row.
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Bytes from a row to the next one.
    pub(crate) pitch: usize,
}

impl Rect {
    /// One row.
    pub(crate) fn row(address: u64, width: usize) -> Self {
        Self {
            address,
            width,
            height: 1,
            pitch: width,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.width * self.height
    }

    /// The bytes from the first to the last one.
    pub(crate) fn extent(&self) -> usize {
        if self.bytes() == 0 {
            return 0;
        }
        (self.height - 1) * self.pitch + self.width
    }

    /// The addresses of the rows; none if they are empty.
    pub(crate) fn rows(self) -> impl Iterator<Item = u64> {
        let rows = if self.width == 0 { 0 } else { self.height };
        (0..rows as u64).map(move |row| self.address + row * self.pitch as u64)
    }
}

/// Memory of the host that a copy reads or writes when it runs.
#[derive(Clone, Debug)]
pub(crate) struct HostSide {
    pub(crate) rect: Rect,
    /// The record of the pinned allocation, and where the rectangle begins in it. Other memory is not checked.
    pub(crate) pinned: Option<(usize, usize)>,
}

/// Where the bytes of an upload are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// They were taken by the call, as from memory that is not pinned.
    Taken(Arc<[u8]>),
    /// They are read when the copy runs. What they were at the call, unless an operation may still have changed them.
    Pinned(HostSide, Option<Arc<[u8]>>),
}

/// A kernel with what it is launched with.
#[derive(Debug)]
pub(crate) struct KernelLaunch {
    pub(crate) module: Arc<Module>,
    /// The index of the kernel among the module's entries.
    pub(crate) entry: usize,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: usize,
    pub(crate) params: Vec<u8>,
    pub(crate) variables: Arc<[u64]>,
}

impl KernelLaunch {
    pub(crate) fn entry(&self) -> &Entry {
        &self.module.entries()[self.entry]
    }
}

/// How a native operation uses a rectangle of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
    /// Its contents before and after have no meaning.
    Scratch,
}

/// The function of a native operation: its argument, and the bytes of each rectangle. Those of a scratch are absent.
pub(crate) type NativeRun = unsafe extern "C" fn(*mut c_void, *const *mut u8);
/// Ends the life of the argument.
pub(crate) type NativeDrop = unsafe extern "C" fn(*mut c_void);

/// An operation of another double, which the host computes.
#[derive(Debug)]
pub(crate) struct Native {
    pub(crate) spans: Vec<(Rect, Use)>,
    pub(crate) run: NativeRun,
    pub(crate) release: NativeDrop,
    pub(crate) argument: *mut c_void,
}

// SAFETY: who queues a native operation promises (`vgpu_native`) that any thread may run it, one at a time or several, and
// that any thread may release its argument.
unsafe impl Send for Native {}
// SAFETY: as above; `run` only gets the argument to read.
unsafe impl Sync for Native {}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: the argument is released once, here, and nobody runs the operation any more: all that can run it hold it.
        unsafe { (self.release)(self.argument) }
    }
}

/// How a gate looks to the double that made it: [`OPEN`], [`CLOSED`], or the handle of a stream that must get on first.
pub(crate) type GateLook = unsafe extern "C" fn(*mut c_void) -> u64;
const OPEN: u64 = 0;
const CLOSED: u64 = 1;

/// What a stream sees of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Open,
    /// Nothing that is queued opens it.
    Closed,
    /// It opens when the stream of this handle has run what it was given.
    Behind(u64),
}

/// Keeps a stream from going on until another double lets it: an operation of several devices waits for its other parts.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) look: GateLook,
    pub(crate) release: NativeDrop,
    pub(crate) argument: *mut c_void,
    /// Whether it was given up, and a report made.
    pub(crate) given_up: AtomicBool,
}

// SAFETY: who queues a gate promises (`vgpu_gate`) that any thread may look, several at a time, and that any thread may release its
// argument.
unsafe impl Send for Gate {}
// SAFETY: as above.
unsafe impl Sync for Gate {}

impl Gate {
    pub(crate) fn sight(&self) -> Sight {
        if self.given_up.load(Ordering::Relaxed) {
            return Sight::Open;
        }
        // SAFETY: the argument lives until `release`.
        match unsafe { (self.look)(self.argument) } {
            OPEN => Sight::Open,
            CLOSED => Sight::Closed,
            stream => Sight::Behind(stream),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // SAFETY: the argument is released once, here, and nobody looks any more: all that can look hold the gate.
        unsafe { (self.release)(self.argument) }
    }
}

/// A function of the program, for `cuLaunchHostFunc`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostFunction {
    pub(crate) function: unsafe extern "C" fn(*mut c_void),
    pub(crate) argument: *mut c_void,
}

// SAFETY: a driver calls host functions from a thread of its own, so programs must pass one that any thread may call.
unsafe impl Send for HostFunction {}
// SAFETY: as above.
unsafe impl Sync for HostFunction {}

/// What an operation does.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Nothing,
    Wait(OpRef),
    /// Of an event, by its index.
    Record(usize),
    /// Of the allocation with this record.
    Free(usize),
    Kernel(Arc<KernelLaunch>),
    Fill(Rect, u8),
    Upload(Rect, Source),
    Download(HostSide, Rect),
    /// To the first from the second.
    Copy(Rect, Rect),
    Host(HostFunction),
    Native(Arc<Native>),
    Gate(Arc<Gate>),
}

impl Work {
    /// The pinned memory that the work uses: the record, the first byte, and the number of bytes.
    pub(crate) fn pinned(&self) -> Option<(usize, usize, usize)> {
        let side = match self {
            Self::Upload(_, Source::Pinned(side, _)) | Self::Download(side, _) => side,
            _ => return None,
        };
        side.pinned
            .map(|(id, start)| (id, start, side.rect.extent()))
    }
}
