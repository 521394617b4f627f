//! Events.

use std::ffi::c_uint;

use crate::api::calls::api;
use crate::api::current::{current_device, event_index, stream_index};
use crate::arguments::Out;
use crate::codes::{self, Res};
use crate::engine::engine;
use crate::handles::{EVENT, handle};
use crate::streams::EventState;

/// `CU_EVENT_DISABLE_TIMING`
const NO_TIMING: c_uint = 2;

fn elapsed(milliseconds: &Out<f32>, start: u64, end: u64) -> Res {
    let state = engine()?.lock();
    let (start, end) = (event_index(&state, start)?, event_index(&state, end)?);
    let mut times = [0.0; 2];
    for (time, event) in times.iter_mut().zip([start, end]) {
        let event = &state.events[event];
        let record = event.record.as_ref().filter(|_| event.timing);
        if !state.is_done(record.ok_or(codes::INVALID_HANDLE)?) {
            return Err(codes::NOT_READY);
        }
        *time = event.nanoseconds as f64;
    }
    milliseconds.set(((times[1] - times[0]) / 1e6) as f32)
}

api! {
    fn cuEventCreate(event: Out<u64>, flags: c_uint) {
        let device = current_device()?;
        let mut state = engine()?.lock();
        state.events.push(EventState {
            device,
            alive: true,
            timing: flags & NO_TIMING == 0,
            record: None,
            nanoseconds: 0,
            captured: None,
        });
        event.set(handle(EVENT, state.events.len() - 1))
    }

    /// Returns at once; waits for what it recorded still hold.
    fn cuEventDestroy_v2(event: u64) {
        let mut state = engine()?.lock();
        let event = event_index(&state, event)?;
        state.events[event].alive = false;
        Ok(())
    }

    fn cuEventRecord(event: u64, stream: u64) {
        let stream = stream_index(stream)?;
        let engine = engine()?;
        let mut state = engine.lock();
        let event = event_index(&state, event)?;
        let (of_event, of_stream) = (state.events[event].device, state.streams[stream].device);
        if of_event != of_stream {
            let text = format!(
                "event e{event} of device {of_event} recorded in stream s{stream} of device {of_stream}"
            );
            return state.refuse(codes::INVALID_HANDLE, text);
        }
        if let Some(capture) = state.streams[stream].capture {
            let number = state.captures[capture].record(stream);
            state.events[event].captured = Some((capture, number));
            return Ok(());
        }
        state.events[event].captured = None;
        state.record_event(stream, event)?;
        engine.run_some(state);
        Ok(())
    }

    fn cuEventQuery(event: u64) {
        let engine = engine()?;
        let mut state = engine.lock();
        let event = event_index(&state, event)?;
        if let Some((capture, _)) = state.events[event].captured {
            state.captures[capture].invalid = true;
            return Err(codes::CAPTURED_EVENT);
        }
        let Some(record) = state.events[event].record.clone() else {
            return Ok(());
        };
        if !state.is_done(&record) {
            state = engine.poll(state, record.stream);
        }
        if !state.is_done(&record) {
            return Err(codes::NOT_READY);
        }
        drop(state);
        engine.synchronize_operation(&record)
    }

    fn cuEventSynchronize(event: u64) {
        let engine = engine()?;
        let state = engine.lock();
        let event = event_index(&state, event)?;
        if state.events[event].captured.is_some() {
            return Err(codes::CAPTURED_EVENT);
        }
        let record = state.events[event].record.clone();
        drop(state);
        record.map_or(Ok(()), |record| engine.synchronize_operation(&record))
    }

    fn cuEventElapsedTime(milliseconds: Out<f32>, start: u64, end: u64) {
        elapsed(&milliseconds, start, end)
    }

    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: u64, end: u64) {
        elapsed(&milliseconds, start, end)
    }
}
