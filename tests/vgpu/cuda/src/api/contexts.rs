//! Primary contexts and access between devices.

use std::ffi::{c_int, c_uint};

use crate::api::calls::api;
use crate::api::current::{context_device, current, current_device, device_index, set_current};
use crate::arguments::Out;
use crate::codes::{self, Res};
use crate::engine::{Engine, engine};
use crate::handles::{CONTEXT, handle};
use crate::records::Life;
use crate::work::Work;

impl Engine {
    /// The end of a primary context: what was not given back is reported, and then gone.
    fn release(&self, device: usize) -> Res {
        let mut state = self.lock();
        for stream in 0..state.streams.len() {
            if state.streams[stream].device == device {
                state.streams[stream].capture = None;
                state = self.finish_stream(state, stream);
            }
        }
        let mut leaks = state.leaks(Some(device));
        if state.devices.iter().all(|device| device.retained == 0) {
            leaks.extend(state.leaks(None));
        }
        if !leaks.is_empty() {
            let list = leaks.join(", ");
            let text = format!("leaked at the release of the context of device {device}: {list}");
            state.report(codes::UNKNOWN, text);
        }
        let legacy = state.devices[device].legacy;
        let label = "release of the context".to_owned();
        let last = state.push(legacy, Work::Nothing, label);
        let mut state = self.finish_operation(state, &last);
        for record in &mut state.records {
            if record.device == Some(device) && !matches!(record.life, Life::Freed(_)) {
                record.life = Life::Freed(last.clone());
                record.history.clear();
                self.heap.free(record.base);
            }
        }
        for stream in state.streams.iter_mut().filter(|s| s.device == device) {
            stream.alive = stream.legacy || stream.internal;
        }
        for event in state.events.iter_mut().filter(|e| e.device == device) {
            event.alive = false;
        }
        for module in state.modules.iter_mut().filter(|m| m.device == device) {
            module.loaded = false;
        }
        state.devices[device].peers.clear();
        state.take_findings()
    }
}

api! {
    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: c_int) {
        let device = device_index(device)?;
        engine()?.lock().devices[device].retained += 1;
        context.set(handle(CONTEXT, device))
    }

    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        let device = device_index(device)?;
        let engine = engine()?;
        let mut state = engine.lock();
        let retained = &mut state.devices[device].retained;
        *retained = retained.checked_sub(1).ok_or(codes::INVALID_CONTEXT)?;
        if *retained > 0 {
            return Ok(());
        }
        drop(state);
        if current() == handle(CONTEXT, device) {
            set_current(0);
        }
        engine.release(device)
    }

    fn cuCtxSetCurrent(context: u64) {
        let engine = engine()?;
        if context != 0 {
            context_device(&engine.lock(), context)?;
        }
        set_current(context);
        Ok(())
    }

    fn cuCtxGetCurrent(context: Out<u64>) {
        engine()?;
        context.set(current())
    }

    fn cuCtxGetDevice(device: Out<c_int>) {
        device.set(current_device()? as c_int)
    }

    fn cuCtxSetFlags(_flags: c_uint) {
        current_device().map(|_| ())
    }

    fn cuCtxSynchronize() {
        engine()?.synchronize_device(current_device()?)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) {
        current_device()?;
        least.set_if_wanted(0);
        greatest.set_if_wanted(-5);
        Ok(())
    }

    fn cuCtxEnablePeerAccess(peer: u64, flags: c_uint) {
        let device = current_device()?;
        let engine = engine()?;
        let mut state = engine.lock();
        let peer = context_device(&state, peer)?;
        if flags != 0 {
            return Err(codes::INVALID_VALUE);
        }
        if peer == device || !engine.config.peers {
            return Err(codes::PEER_ACCESS_UNSUPPORTED);
        }
        if !state.devices[device].peers.insert(peer) {
            return Err(codes::PEER_ACCESS_ALREADY_ENABLED);
        }
        Ok(())
    }
}
