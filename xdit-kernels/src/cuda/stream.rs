//! Streams: the lines in which a GPU works, and events, the points in them.

use super::{context::CudaContext, error::NOT_READY};
use crate::{Error, Result};
use cudarc::driver::sys::{CUevent, CUevent_flags, CUstream, CUstream_flags};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A stream that does not wait for the context's default stream.
pub(crate) struct CudaStream {
    pub(super) context: Arc<CudaContext>,
    pub(super) raw: CUstream,
    /// The first failure of a call that returns no error. [`synchronize`](Self::synchronize) reports it.
    failure: Mutex<Option<Error>>,
}

// SAFETY: the driver takes calls for one stream from several threads.
unsafe impl Send for CudaStream {}
// SAFETY: as above.
unsafe impl Sync for CudaStream {}

impl fmt::Debug for CudaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaStream of {}", self.context.ordinal)
    }
}

impl CudaStream {
    pub(super) fn new(op: &'static str, context: &Arc<CudaContext>) -> Result<Self> {
        context.bind(op)?;
        let mut raw = std::ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is to a stream, and the context is current.
        let status = unsafe { (context.driver.cuStreamCreate)(&mut raw, flags) };
        context.check(op, "cuStreamCreate", status)?;
        Ok(Self {
            context: Arc::clone(context),
            raw,
            failure: Mutex::new(None),
        })
    }

    /// Remembers a failure that the caller cannot return, unless there was one before.
    pub(super) fn note_failure(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    /// An event that happens when everything that this stream was given so far has run.
    pub(super) fn record(&self) -> Result<CudaEvent> {
        const OP: &str = "record";
        let event = CudaEvent::new(OP, &self.context)?;
        self.record_again(OP, &event)?;
        Ok(event)
    }

    /// As [`record`](Self::record), and the GPU notes the time.
    pub(super) fn timestamp(&self) -> Result<CudaEvent> {
        const OP: &str = "timestamp";
        let event = CudaEvent::with(OP, &self.context, CUevent_flags::CU_EVENT_DEFAULT)?;
        self.record_again(OP, &event)?;
        Ok(event)
    }

    /// Makes an event of this GPU happen when everything that this stream was given so far has run. Who waits for it already
    /// waits for what it was before.
    pub(super) fn record_again(&self, op: &'static str, event: &CudaEvent) -> Result<()> {
        self.context.bind(op)?;
        // SAFETY: event and stream are of the current context and alive.
        let status = unsafe { (self.context.driver.cuEventRecord)(event.raw, self.raw) };
        self.context.check(op, "cuEventRecord", status)
    }

    /// Makes all later work of this stream run after the event, which may be of another GPU.
    pub(super) fn wait(&self, event: &CudaEvent) -> Result<()> {
        const OP: &str = "wait";
        self.context.bind(OP)?;
        // SAFETY: stream and event are alive. The driver keeps what it needs of an event that is dropped before it happens.
        let status = unsafe { (self.context.driver.cuStreamWaitEvent)(self.raw, event.raw, 0) };
        self.context.check(OP, "cuStreamWaitEvent", status)
    }

    /// Blocks the calling thread until everything has run. Reports failures of kernels, and of calls that return no error.
    pub(super) fn synchronize(&self, op: &'static str) -> Result<()> {
        self.context.bind(op)?;
        // SAFETY: the stream is alive and of the current context.
        let status = unsafe { (self.context.driver.cuStreamSynchronize)(self.raw) };
        self.context.check(op, "cuStreamSynchronize", status)?;
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        if self.context.bind("stream").is_ok() {
            // SAFETY: created in `new`, destroyed once. The driver runs what the stream was given to its end.
            unsafe { (self.context.driver.cuStreamDestroy_v2)(self.raw) };
        }
    }
}

/// A point in a stream.
pub(crate) struct CudaEvent {
    context: Arc<CudaContext>,
    raw: CUevent,
}

// SAFETY: the driver takes calls for one event from several threads.
unsafe impl Send for CudaEvent {}
// SAFETY: as above.
unsafe impl Sync for CudaEvent {}

impl fmt::Debug for CudaEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaEvent of {}", self.context.ordinal)
    }
}

impl CudaEvent {
    /// An event that has happened, until a stream records it.
    pub(super) fn new(op: &'static str, context: &Arc<CudaContext>) -> Result<Self> {
        Self::with(op, context, CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with(op: &'static str, context: &Arc<CudaContext>, flags: CUevent_flags) -> Result<Self> {
        context.bind(op)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pointer is to an event, and the context is current.
        let status = unsafe { (context.driver.cuEventCreate)(&mut raw, flags as u32) };
        context.check(op, "cuEventCreate", status)?;
        Ok(Self {
            context: Arc::clone(context),
            raw,
        })
    }

    /// Blocks the calling thread until it has happened.
    pub(crate) fn synchronize(&self) -> Result<()> {
        const OP: &str = "wait";
        self.context.bind(OP)?;
        // SAFETY: the event is alive and of the current context.
        let status = unsafe { (self.context.driver.cuEventSynchronize)(self.raw) };
        self.context.check(OP, "cuEventSynchronize", status)
    }

    /// Whether it has happened. Does not wait.
    pub(crate) fn has_happened(&self) -> Result<bool> {
        const OP: &str = "event";
        self.context.bind(OP)?;
        // SAFETY: the event is alive and of the current context.
        match unsafe { (self.context.driver.cuEventQuery)(self.raw) } {
            NOT_READY => Ok(false),
            status => self
                .context
                .check(OP, "cuEventQuery", status)
                .map(|()| true),
        }
    }

    /// The time between two timestamps of one GPU. Blocks the calling thread until both have happened.
    pub(crate) fn milliseconds_since(&self, earlier: &Self) -> Result<f32> {
        const OP: &str = "timestamp";
        earlier.synchronize()?;
        self.synchronize()?;
        let mut milliseconds = 0.0;
        let ask = self.context.driver.cuEventElapsedTime;
        // SAFETY: the pointer is to a number; both events are alive, and were recorded before anybody had them.
        let status = unsafe { ask(&mut milliseconds, earlier.raw, self.raw) };
        self.context.check(OP, "cuEventElapsedTime", status)?;
        Ok(milliseconds)
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        if self.context.bind("event").is_ok() {
            // SAFETY: created in `new`, destroyed once.
            unsafe { (self.context.driver.cuEventDestroy_v2)(self.raw) };
        }
    }
}
