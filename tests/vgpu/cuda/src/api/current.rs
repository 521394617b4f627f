//! The current context of each thread, and what numbers of devices and handles of streams and events mean.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_int;

use crate::codes::{self, Res};
use crate::engine::engine;
use crate::handles::{CONTEXT, EVENT, STREAM, index};
use crate::state::State;

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0) };
    static PER_THREAD: RefCell<HashMap<usize, usize>> = RefCell::default();
}

pub(crate) fn current() -> u64 {
    CURRENT.get()
}

pub(crate) fn set_current(context: u64) {
    CURRENT.set(context);
}

/// The device with a number.
pub(crate) fn device_index(device: c_int) -> Res<usize> {
    let devices = engine()?.config.devices;
    let device = usize::try_from(device).ok().filter(|d| *d < devices);
    device.ok_or(codes::INVALID_DEVICE)
}

/// The device of the current context.
pub(crate) fn current_device() -> Res<usize> {
    let devices = engine()?.config.devices;
    index(CONTEXT, CURRENT.get(), devices).map_err(|_| codes::INVALID_CONTEXT)
}

/// The device of a context that is retained.
pub(crate) fn context_device(state: &State, context: u64) -> Res<usize> {
    let device =
        index(CONTEXT, context, state.devices.len()).map_err(|_| codes::INVALID_CONTEXT)?;
    if state.devices[device].retained == 0 {
        return Err(codes::INVALID_CONTEXT);
    }
    Ok(device)
}

/// The stream of a handle. 0 and 1 are the legacy default stream of the current context, 2 is the thread's own.
pub(crate) fn stream_index(handle: u64) -> Res<usize> {
    let engine = engine()?;
    match handle {
        0 | 1 => Ok(engine.lock().devices[current_device()?].legacy),
        2 => {
            let device = current_device()?;
            let made = || {
                let mut state = engine.lock();
                let stream = state.new_stream(device, true);
                state.streams[stream].internal = true;
                stream
            };
            Ok(PER_THREAD.with_borrow_mut(|own| *own.entry(device).or_insert_with(made)))
        }
        handle => {
            let state = engine.lock();
            let stream = index(STREAM, handle, state.streams.len())?;
            if state.streams[stream].alive {
                Ok(stream)
            } else {
                Err(codes::INVALID_HANDLE)
            }
        }
    }
}

/// The event of a handle.
pub(crate) fn event_index(state: &State, handle: u64) -> Res<usize> {
    let event = index(EVENT, handle, state.events.len())?;
    if state.events[event].alive {
        Ok(event)
    } else {
        Err(codes::INVALID_HANDLE)
    }
}
