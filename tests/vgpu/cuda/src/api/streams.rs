//! Streams and host functions.

use std::ffi::{c_int, c_uint, c_void};

use crate::api::calls::api;
use crate::api::current::{current_device, event_index, stream_index};
use crate::arguments::Out;
use crate::codes::{self, Res};
use crate::engine::engine;
use crate::handles::{STREAM, handle};
use crate::work::{HostFunction, Work};

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: c_uint = 1;

fn create(stream: &Out<u64>, flags: c_uint) -> Res {
    let device = current_device()?;
    if flags > NON_BLOCKING {
        return Err(codes::INVALID_VALUE);
    }
    let blocking = flags & NON_BLOCKING == 0;
    let number = engine()?.lock().new_stream(device, blocking);
    stream.set(handle(STREAM, number))
}

api! {
    fn cuStreamCreate(stream: Out<u64>, flags: c_uint) {
        create(&stream, flags)
    }

    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: c_uint, _priority: c_int) {
        create(&stream, flags)
    }

    /// Returns at once; what is queued still runs.
    fn cuStreamDestroy_v2(stream: u64) {
        if stream < 3 {
            return Err(codes::INVALID_HANDLE);
        }
        let stream = stream_index(stream)?;
        engine()?.lock().streams[stream].alive = false;
        Ok(())
    }

    fn cuStreamSynchronize(stream: u64) {
        engine()?.synchronize_stream(stream_index(stream)?)
    }

    fn cuStreamQuery(stream: u64) {
        let stream = stream_index(stream)?;
        let engine = engine()?;
        let mut state = engine.lock();
        state.break_capture(stream)?;
        let state = engine.poll(state, stream);
        if !state.streams[stream].is_idle() {
            return Err(codes::NOT_READY);
        }
        drop(state);
        engine.synchronize_stream(stream)
    }

    fn cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) {
        let stream = stream_index(stream)?;
        let engine = engine()?;
        let mut state = engine.lock();
        let event = event_index(&state, event)?;
        match (state.events[event].captured, state.streams[stream].capture) {
            (Some((capture, record)), own) => {
                if own.is_some_and(|own| own != capture) {
                    return Err(codes::STREAM_CAPTURE_MERGE);
                }
                state.streams[stream].capture = Some(capture);
                state.captures[capture].wait(stream, record);
                Ok(())
            }
            (None, Some(capture)) => {
                if state.events[event].record.is_none() {
                    return Ok(());
                }
                state.captures[capture].invalid = true;
                let text = format!(
                    "stream s{stream} is captured and waits for event e{event}, which was recorded outside of the capture"
                );
                state.refuse(codes::STREAM_CAPTURE_ISOLATION, text)
            }
            (None, None) => {
                let Some(record) = state.events[event].record.clone() else {
                    return Ok(());
                };
                let queue = &mut state.streams[stream];
                queue.waits += 1;
                let this = (stream, queue.waits);
                if state.config.dropped_wait == Some(this) {
                    return Ok(());
                }
                let label = format!("wait for event e{event}");
                state.enqueue(stream, Work::Wait(record), label)?;
                engine.run_some(state);
                Ok(())
            }
        }
    }

    fn cuLaunchHostFunc(stream: u64, function: Option<unsafe extern "C" fn(*mut c_void)>, argument: *mut c_void) {
        let stream = stream_index(stream)?;
        let function = function.ok_or(codes::INVALID_VALUE)?;
        let work = Work::Host(HostFunction { function, argument });
        engine()?.submit(stream, work, "host function".to_owned()).map(|_| ())
    }
}
