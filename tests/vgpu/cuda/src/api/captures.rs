//! Capture of streams, and graphs.

use std::ffi::{c_int, c_ulonglong};
use std::sync::Arc;

use crate::api::calls::api;
use crate::api::current::stream_index;
use crate::arguments::Out;
use crate::codes::{self, Res};
use crate::engine::engine;
use crate::graph::{Capture, Executable};
use crate::handles::{EXECUTABLE, GRAPH, handle, index};

/// `CU_GRAPH_INSTANTIATE_FLAG_*` that exist, and the two that exclude each other: free on launch, and launch by a device.
const FLAGS: c_ulonglong = 0xf;
const EXCLUSIVE: c_ulonglong = 5;

fn instantiate(executable: &Out<u64>, graph: u64, flags: c_ulonglong) -> Res {
    if flags & !FLAGS != 0 || flags & EXCLUSIVE == EXCLUSIVE {
        return Err(codes::INVALID_VALUE);
    }
    let mut state = engine()?.lock();
    let graph = index(GRAPH, graph, state.graphs.len())?;
    let graph = state.graphs[graph].clone().ok_or(codes::INVALID_HANDLE)?;
    state.executables.push(Some(Executable {
        graph,
        lanes: Vec::new(),
        last: None,
    }));
    executable.set(handle(EXECUTABLE, state.executables.len() - 1))
}

api! {
    fn cuStreamBeginCapture_v2(stream: u64, _mode: c_int) {
        let stream = stream_index(stream)?;
        let mut state = engine()?.lock();
        if state.streams[stream].legacy {
            return Err(codes::STREAM_CAPTURE_UNSUPPORTED);
        }
        if state.streams[stream].capture.is_some() {
            return Err(codes::ILLEGAL_STATE);
        }
        state.captures.push(Capture::new(stream));
        state.streams[stream].capture = Some(state.captures.len() - 1);
        Ok(())
    }

    fn cuStreamEndCapture(stream: u64, graph: Out<u64>) {
        let stream = stream_index(stream)?;
        let mut state = engine()?.lock();
        graph.set(0)?;
        let capture = state.streams[stream].capture.ok_or(codes::ILLEGAL_STATE)?;
        if state.captures[capture].origin != stream {
            return Err(codes::STREAM_CAPTURE_UNMATCHED);
        }
        for stream in &mut state.streams {
            stream.capture.take_if(|own| *own == capture);
        }
        for event in &mut state.events {
            event.captured.take_if(|(own, _)| *own == capture);
        }
        if state.captures[capture].invalid {
            return Err(codes::STREAM_CAPTURE_INVALIDATED);
        }
        if !state.captures[capture].is_joined() {
            let text = "the capture ends while a stream that it forked is not joined".to_owned();
            return state.refuse(codes::STREAM_CAPTURE_UNJOINED, text);
        }
        let captured = Arc::new(state.captures[capture].clone());
        state.graphs.push(Some(captured));
        graph.set(handle(GRAPH, state.graphs.len() - 1))
    }

    fn cuStreamIsCapturing(stream: u64, status: Out<c_int>) {
        let stream = stream_index(stream)?;
        let state = engine()?.lock();
        let status_now = state.streams[stream].capture.map_or(0, |capture| {
            if state.captures[capture].invalid { 2 } else { 1 }
        });
        status.set(status_now)
    }

    fn cuGraphInstantiateWithFlags(executable: Out<u64>, graph: u64, flags: c_ulonglong) {
        instantiate(&executable, graph, flags)
    }

    fn cuGraphUpload(executable: u64, stream: u64) {
        stream_index(stream)?;
        let state = engine()?.lock();
        index(EXECUTABLE, executable, state.executables.len()).map(|_| ())
    }

    fn cuGraphLaunch(executable: u64, stream: u64) {
        let stream = stream_index(stream)?;
        let engine = engine()?;
        let mut state = engine.lock();
        let executable = index(EXECUTABLE, executable, state.executables.len())?;
        if state.streams[stream].capture.is_some() {
            let text = "cuGraphLaunch during a capture: the double does not know it".to_owned();
            return state.refuse(codes::NOT_SUPPORTED, text);
        }
        state.launch_graph(executable, stream)?;
        engine.run_some(state);
        Ok(())
    }

    fn cuGraphExecDestroy(executable: u64) {
        let mut state = engine()?.lock();
        let executable = index(EXECUTABLE, executable, state.executables.len())?;
        let gone = state.executables[executable].take();
        gone.map(|_| ()).ok_or(codes::INVALID_HANDLE)
    }

    fn cuGraphDestroy(graph: u64) {
        let mut state = engine()?.lock();
        let graph = index(GRAPH, graph, state.graphs.len())?;
        let gone = state.graphs[graph].take();
        gone.map(|_| ()).ok_or(codes::INVALID_HANDLE)
    }
}
