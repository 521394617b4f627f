//! The queues of a rank: how what other ranks computed gets into the order of its own work.

use crate::Result;
use std::sync::{Arc, Mutex, PoisonError};
use xdit_kernels::{Device, Event, Tensor};

/// The queues of one rank, which its groups share.
#[derive(Debug)]
pub(super) struct RankQueues {
    /// Computes. Received tensors are its own.
    compute: Device,
    /// The last event that it waited for: the messages of a batch carry one, for which it waits once.
    waited: Mutex<Option<Event>>,
    links: Mutex<Vec<DeviceLink>>,
}

/// How tensors of another GPU come to that of a rank, beside what the rank computes.
#[derive(Debug)]
struct DeviceLink {
    /// Over the memory of the other GPU: copies run here.
    source: Device,
    /// The last event that it waited for.
    waited: Option<Event>,
    /// Over the memory of the rank's GPU: copies lie here.
    arrivals: Device,
}

/// Makes a queue wait for events, but for the last one that it waited for.
fn wait_once(queue: &Device, waited: &mut Option<Event>, events: &[Event]) {
    for event in events {
        if waited.as_ref() != Some(event) {
            queue.wait(event);
            *waited = Some(event.clone());
        }
    }
}

impl RankQueues {
    pub(super) fn new(compute: Device) -> Arc<Self> {
        Arc::new(Self {
            compute,
            waited: Mutex::default(),
            links: Mutex::default(),
        })
    }

    pub(super) fn compute(&self) -> &Device {
        &self.compute
    }

    /// Tensors that other ranks sent, for this rank's queue. Its later work, or the copy if there must be one, runs after the
    /// events, which the senders recorded when they sent. This thread waits for nothing.
    pub(super) fn receive(&self, sent: &[Event], tensors: &[Tensor]) -> Result<Vec<Tensor>> {
        if tensors.iter().any(|t| *t.device() == self.compute) {
            let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
            wait_once(&self.compute, &mut waited, sent);
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut used, mut received) = (Vec::new(), Vec::with_capacity(tensors.len()));
        for tensor in tensors {
            if *tensor.device() == self.compute {
                received.push(tensor.to_device(&self.compute)?);
                continue;
            }
            let known = links.iter().position(|l| l.source == *tensor.device());
            let index = known.unwrap_or_else(|| {
                links.push(DeviceLink {
                    source: tensor.device().fork(),
                    waited: None,
                    arrivals: self.compute.fork(),
                });
                links.len() - 1
            });
            let link = &mut links[index];
            if !used.contains(&index) {
                used.push(index);
                wait_once(&link.source, &mut link.waited, sent);
            }
            let copy = tensor.to_device(&link.source)?.to_device(&link.arrivals)?;
            received.push(copy.to_device(&self.compute)?);
        }
        // What is computed from now on sees the copies.
        for index in used {
            self.compute.wait(&links[index].arrivals.record());
        }
        Ok(received)
    }
}
