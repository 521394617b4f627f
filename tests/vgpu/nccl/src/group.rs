//! Groups: the sends and receives of a thread between `ncclGroupStart` and `ncclGroupEnd`, which progress together.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::comms::{Clique, Phase, delay, ready};
use crate::cuda;
use crate::journal::{self, Event};
use crate::messages::{Extent, Launch, Notice, Presence};
use crate::misuse::refuse;
use crate::status::{IN_PROGRESS, INVALID_ARGUMENT, INVALID_USAGE, Res, Status, bytes_of};

/// A send or a receive of a group.
#[derive(Debug, Clone, Copy)]
struct Item {
    comm: u64,
    is_send: bool,
    buffer: u64,
    extent: Extent,
    peer: usize,
    stream: u64,
}

impl Item {
    fn end(&self) -> u64 {
        self.buffer + self.extent.bytes() as u64
    }
}

#[derive(Debug, Default)]
struct Group {
    depth: usize,
    items: Vec<Item>,
    /// A call of it has failed: then nothing of it begins.
    failed: Option<Status>,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

/// `ncclGroupStart`
pub(crate) fn start() {
    GROUP.with_borrow_mut(|group| group.depth += 1);
}

/// Whether the thread is within a group.
pub(crate) fn is_open() -> bool {
    GROUP.with_borrow(|group| group.depth > 0)
}

/// `ncclSend` and `ncclRecv`
pub(crate) fn message(
    (call, is_send): (&str, bool),
    buffer: u64,
    (count, dtype): (usize, u32),
    peer: c_int,
    comm: u64,
    stream: u64,
) -> Res {
    start();
    let item = check((call, is_send), buffer, (count, dtype), peer, comm, stream);
    GROUP.with_borrow_mut(|group| match item {
        Ok(item) => group.items.push(item),
        Err(status) => group.failed = Some(group.failed.unwrap_or(status)),
    });
    let ended = end();
    item.and(ended)
}

fn check(
    (call, is_send): (&str, bool),
    buffer: u64,
    (count, dtype): (usize, u32),
    peer: c_int,
    handle: u64,
    stream: u64,
) -> Res<Item> {
    let (mut world, index) = ready(call, handle)?;
    let (device, size) = (world.comm(index).device, world.comm(index).size);
    drop(world);
    let wrong = |status, text: String| refuse(status, &format!("{call}: {text}"));
    let Some(peer) = usize::try_from(peer).ok().filter(|peer| *peer < size) else {
        return wrong(
            INVALID_ARGUMENT,
            format!("there is no rank {peer} of {size}"),
        );
    };
    if bytes_of(dtype).is_none() {
        return wrong(INVALID_ARGUMENT, format!("there is no type {dtype}"));
    }
    if buffer == 0 && count > 0 {
        return wrong(INVALID_ARGUMENT, format!("no memory for {count} numbers"));
    }
    match cuda::stream_device(stream) {
        Ok(of) if of == device => {}
        Ok(of) => {
            let text =
                format!("a stream of device {of}, and the communicator is of device {device}");
            return wrong(INVALID_USAGE, text);
        }
        Err(_) => return wrong(INVALID_ARGUMENT, format!("{stream:#x} is no stream")),
    }
    Ok(Item {
        comm: handle,
        is_send,
        buffer,
        extent: Extent { count, dtype },
        peer,
        stream,
    })
}

/// `ncclGroupEnd`
pub(crate) fn end() -> Res {
    let ended = GROUP.with_borrow_mut(|group| match group.depth {
        0 => None,
        1 => Some(std::mem::take(group)),
        _ => {
            group.depth -= 1;
            Some(Group::default())
        }
    });
    let Some(Group { items, failed, .. }) = ended else {
        return refuse(INVALID_USAGE, "ncclGroupEnd without ncclGroupStart");
    };
    if let Some(status) = failed {
        return Err(status);
    }
    let mut comms: Vec<u64> = items.iter().map(|item| item.comm).collect();
    comms.dedup();
    let mut in_progress = false;
    for (i, comm) in comms.iter().enumerate() {
        if comms[..i].contains(comm) {
            continue;
        }
        let items: Vec<Item> = items
            .iter()
            .filter(|item| item.comm == *comm)
            .copied()
            .collect();
        in_progress |= launch(*comm, &items)?;
    }
    match in_progress {
        true => Err(IN_PROGRESS),
        false => Ok(()),
    }
}

/// What is wrong with the messages of one communicator's group.
fn fault(items: &[Item], rank: usize) -> Option<String> {
    let stream = items.first().map(|item| item.stream);
    if items.iter().any(|item| Some(item.stream) != stream) {
        return Some("a group on several streams, which this double does not have".to_owned());
    }
    let to_self = |is_send| {
        let own = move |item: &&Item| item.peer == rank && item.is_send == is_send;
        items.iter().filter(own).count()
    };
    if to_self(true) != to_self(false) {
        return Some(format!(
            "hang: rank {rank} sends {} messages to itself and receives {} in the same group",
            to_self(true),
            to_self(false)
        ));
    }
    let clash = |a: &Item, b: &Item| {
        let apart = a.end() <= b.buffer || b.end() <= a.buffer;
        !(apart || a.is_send && b.is_send)
    };
    for (i, a) in items.iter().enumerate() {
        if items[..i].iter().any(|b| clash(a, b)) {
            return Some("data race: messages of a group use the same memory".to_owned());
        }
    }
    None
}

/// Begins the group of one communicator. Returns whether it is in progress.
fn launch(handle: u64, items: &[Item]) -> Res<bool> {
    let (mut world, index) = ready("ncclGroupEnd", handle)?;
    let comm = world.comm(index);
    let polls = delay(comm);
    let (rank, clique, number) = (comm.rank, comm.clique, comm.groups);
    comm.groups += 1;
    if let Some(fault) = fault(items, rank) {
        drop(world);
        return refuse(INVALID_USAGE, &fault);
    }
    let peers = |is_send| -> Vec<usize> {
        let of = items.iter().filter(|item| item.is_send == is_send);
        of.map(|item| item.peer).collect()
    };
    let (to, from) = (peers(true), peers(false));
    let presence = Arc::new(Presence {
        stream: items[0].stream,
        label: format!("group of rank {rank} (sends to {to:?}, receives from {from:?})"),
        arrived: AtomicBool::new(false),
        delivered: AtomicBool::new(false),
        aborted: Arc::clone(&comm.aborted),
    });
    let (mut sends, mut wants, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    let lanes = &mut world.cliques[clique].lanes;
    for item in items {
        let Item {
            buffer,
            extent,
            peer,
            ..
        } = *item;
        if item.is_send {
            let parcel = lanes.send((rank, peer), extent, &presence, &mut faults);
            sends.push((buffer, parcel));
        } else {
            let wanted = lanes.receive((peer, rank), extent, &presence, &mut faults);
            wants.push((buffer, wanted));
        }
    }
    let elsewhere = world.elsewhere(clique);
    let Clique { meeting, name, .. } = &world.cliques[clique];
    let notice = (!elsewhere.is_empty()).then(|| Notice {
        meeting: *meeting,
        clique: name.clone(),
        rank,
        number,
        elsewhere,
    });
    let launch = Arc::new(Launch {
        presence,
        sends,
        wants,
        notice,
    });
    if let Some(notice) = &launch.notice {
        let items = items.iter().map(|it| (it.is_send, it.peer, it.extent));
        let event = Event::Grouped {
            clique: notice.clique.clone(),
            rank,
            number,
            items: items.collect(),
        };
        journal::write(notice.meeting, &event);
        world.note_launch(&launch);
    }
    let comm = world.comm(index);
    comm.under_way
        .retain(|other| !other.delivered.load(Ordering::Acquire));
    comm.under_way.push(Arc::clone(&launch.presence));
    // Sometimes a group is in its stream at once.
    let is_in_progress = !world.cliques[clique].lanes.connect(&launch) || polls > 0;
    if is_in_progress {
        let comm = world.comm(index);
        comm.polls = polls.saturating_sub(1);
        comm.phase = Phase::Launching(Arc::clone(&launch));
    }
    drop(world);
    for fault in &faults {
        let _ = refuse::<()>(INVALID_USAGE, fault);
    }
    if is_in_progress {
        return Ok(true);
    }
    cuda::queue(&launch).map(|()| false)
}
