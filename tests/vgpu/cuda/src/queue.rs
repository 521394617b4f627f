//! How operations get into streams, and what they are ordered after.

use std::sync::Arc;

use crate::clock::{OpRef, Operation, knows};
use crate::codes::{self, Res};
use crate::graph::Call;
use crate::state::State;
use crate::work::Work;

impl State {
    /// Adds an operation to a stream, or to the graph that captures the stream: then there is no operation yet.
    pub(crate) fn enqueue(
        &mut self,
        stream: usize,
        work: Work,
        label: String,
    ) -> Res<Option<OpRef>> {
        if let Some(capture) = self.streams[stream].capture {
            self.captures[capture].add(stream, work, label);
            return Ok(None);
        }
        self.order_by_default_stream(stream)?;
        Ok(Some(self.push(stream, work, label)))
    }

    /// The legacy default stream waits for all blocking streams of its device, and they wait for it.
    fn order_by_default_stream(&mut self, stream: usize) -> Res {
        let (device, legacy) = (self.streams[stream].device, self.streams[stream].legacy);
        if legacy {
            for other in 0..self.streams.len() {
                let candidate = &self.streams[other];
                if candidate.device != device || !candidate.blocking || other == stream {
                    continue;
                }
                if candidate.capture.is_some() {
                    return Err(codes::STREAM_CAPTURE_UNSUPPORTED);
                }
                self.order_after(stream, other);
            }
        } else if self.streams[stream].blocking {
            self.order_after(stream, self.devices[device].legacy);
        }
        Ok(())
    }

    fn order_after(&mut self, stream: usize, other: usize) {
        let Some(last) = self.streams[other].last.clone() else {
            return;
        };
        if !knows(&self.streams[stream].clock, &last) {
            let label = "order of the default stream".to_owned();
            self.push(stream, Work::Wait(last), label);
        }
    }

    /// Adds an operation to the queue of a stream.
    pub(crate) fn push(&mut self, stream: usize, work: Work, label: String) -> OpRef {
        let host = self.host.clone();
        let queue = &mut self.streams[stream];
        queue.issued += 1;
        let operation = Operation::new(stream, queue.issued, label, host);
        queue.queue.push_back((operation.clone(), work));
        queue.last = Some(operation.clone());
        operation
    }

    pub(crate) fn record_event(&mut self, stream: usize, event: usize) -> Res {
        let label = format!("record of event e{event}");
        self.events[event].record = self.enqueue(stream, Work::Record(event), label)?;
        Ok(())
    }

    /// Queues all calls of a graph: those of its first lane in `stream`.
    pub(crate) fn launch_graph(&mut self, index: usize, stream: usize) -> Res {
        let executable = self.executables[index].as_ref();
        let executable = executable.ok_or(codes::INVALID_HANDLE)?;
        let graph = Arc::clone(&executable.graph);
        let (mut lanes, last) = (executable.lanes.clone(), executable.last.clone());
        self.order_by_default_stream(stream)?;
        let device = self.streams[stream].device;
        while lanes.len() + 1 < graph.lanes() {
            let lane = self.new_stream(device, false);
            self.streams[lane].internal = true;
            lanes.push(lane);
        }
        if let Some(last) = last {
            let label = "previous launch of the graph".to_owned();
            self.push(stream, Work::Wait(last), label);
        }
        let mut records: Vec<OpRef> = Vec::new();
        for (lane, call) in &graph.calls {
            let lane = lane.checked_sub(1).map_or(stream, |other| lanes[other]);
            match call {
                Call::Work(work, label) => {
                    self.push(lane, work.clone(), format!("{label} (graph)"));
                }
                Call::Record => {
                    let label = "record of an event (graph)".to_owned();
                    records.push(self.push(lane, Work::Nothing, label));
                }
                Call::Wait(record) => {
                    let label = "wait for an event (graph)".to_owned();
                    self.push(lane, Work::Wait(records[*record].clone()), label);
                }
            }
        }
        let last = self.push(stream, Work::Nothing, "end of a graph".to_owned());
        if let Some(executable) = &mut self.executables[index] {
            executable.lanes = lanes;
            executable.last = Some(last);
        }
        Ok(())
    }
}
