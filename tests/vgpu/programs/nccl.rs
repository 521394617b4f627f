//! Programs of two ranks that NCCL connects: threads, with a GPU each.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use crate::driver::{
    Event, Gpu, Pointer, Stream, allocate, call, destroy, download, event, free, record, stream,
    synchronize, upload, uploaded, wait,
};
use crate::nccl_calls::{Comm, Config, F32, I32, Id, Nccl};
use crate::{Outcome, Program, compare};

const N: usize = 512;

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "nccl ranks",
        capability: 80,
        run: ranks,
        bugs: &[
            ("another number of ranks", "and another rank said"),
            ("a rank twice", "two processes are rank"),
            ("a rank too many", "rank 2 of 2"),
            ("an id of nobody", "none of ncclGetUniqueId"),
            ("an id that was used", "was used before"),
            ("one device", "Duplicate GPU detected"),
            ("an empty config", "the config is not initialised"),
            ("a config that blocks", "non-blocking communicators only"),
            ("no poll after the join", "is in progress"),
            ("no poll after the split", "is in progress"),
            ("a call after the abort", "that was aborted"),
            ("two aborts", "that was aborted"),
            ("a call after the end", "that was destroyed"),
            ("no finalize", "has not been finalized"),
            ("no end", "neither aborted nor destroyed"),
            ("no communicator", "is no communicator"),
        ],
    },
    Program {
        name: "nccl messages",
        capability: 80,
        run: messages,
        bugs: &[
            ("the receive before the send", "deadlock"),
            ("the peer never receives", "hang"),
            ("a message to itself", "to itself and receives 0"),
            ("another count", "which receives 256 numbers"),
            ("another type", "which receives 512 numbers of type 2"),
            ("no such type", "there is no type"),
            ("no such peer", "there is no rank"),
            ("no memory", "no memory for"),
            ("memory that is too small", "out of bounds/no allocation"),
            ("memory of the other device", "has no peer access"),
            ("a stream of the other device", "a stream of device"),
            ("the other device is current", "the current device is"),
            ("no poll after a group", "is in progress"),
            ("an abort within a group", "within a group"),
            ("an end without a start", "without ncclGroupStart"),
            ("one piece of memory for both", "use the same memory"),
            ("what is sent is not yet there", "data race/never-written"),
            ("what is sent is overwritten", "data race"),
            (
                "what is received is read too early",
                "data race/never-written",
            ),
            ("the event before the poll", "data race/never-written"),
            (
                "memory freed too early",
                "freed while in use/use after free/unordered free",
            ),
        ],
    },
];

/// Runs a function on two ranks, each with its GPU.
fn on_two(bug: &str, rank: fn(&Nccl, c_int, Id, &str) -> Outcome) -> Outcome {
    // The driver starts first, and ends last.
    drop(Gpu::open(0)?.close());
    let nccl = Nccl::open()?;
    let id = nccl.id()?;
    let run = |number| {
        let done = rank(&nccl, number, id, bug);
        if done.is_err() {
            nccl.failed.store(true, Ordering::Relaxed);
        }
        done
    };
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(move || run(1));
        (run(0), other.join())
    });
    first.and(second.unwrap_or_else(|_| Err("a rank panicked".to_owned())))
}

fn joined(nccl: &Nccl, rank: c_int, id: Id) -> Result<Comm, String> {
    let comm = nccl.join(2, id, rank, Config::non_blocking())?;
    nccl.wait(comm)?;
    Ok(comm)
}

/// How ranks come together, split and end.
fn ranks(bug: &str) -> Outcome {
    on_two(bug, |nccl, rank, id, bug| {
        let gpu = Gpu::open(if bug == "one device" { 0 } else { rank })?;
        let mut config = Config::non_blocking();
        match bug {
            "an empty config" => config.magic = 0,
            "a config that blocks" => config.blocking = 1,
            _ => {}
        }
        let size = if bug == "another number of ranks" {
            2 + rank
        } else {
            2
        };
        let number = match bug {
            "a rank twice" => 0,
            "a rank too many" => rank + 1,
            _ => rank,
        };
        let id = if bug == "an id of nobody" {
            Id([7; 128])
        } else {
            id
        };
        let comm = nccl.join(size, id, number, config)?;
        let mut half = std::ptr::null_mut();
        if bug == "no poll after the join" {
            nccl.split(comm, 0, 0, &mut half)?;
        }
        nccl.wait(comm)?;
        if bug == "an id that was used" {
            nccl.join(2, id, rank, config)?;
        }
        // In the order of the keys, so that rank 1 is the first.
        nccl.split(comm, 0, -rank, &mut half)?;
        if bug == "no poll after the split" {
            nccl.finalize(comm)?;
        }
        nccl.wait(comm)?;
        nccl.wait(half)?;
        match bug {
            "no finalize" => nccl.destroy(half)?,
            "no end" => return Ok(()),
            "no communicator" => nccl.wait(std::ptr::without_provenance_mut(5))?,
            _ => {
                nccl.finalize(half)?;
                nccl.destroy(half)?;
            }
        }
        if bug == "a call after the end" {
            nccl.wait(half)?;
        }
        nccl.abort(comm)?;
        match bug {
            "a call after the abort" => nccl.wait(comm)?,
            "two aborts" => nccl.abort(comm)?,
            _ => {}
        }
        gpu.close()
    })
}

/// What a rank of `messages` has.
struct Rank<'a> {
    gpu: &'a Gpu,
    comm: Comm,
    peer: c_int,
    compute: Stream,
    messages: Stream,
    ready: Event,
    done: Event,
    x: Pointer,
    y: Pointer,
}

/// Each rank sends the other what it has, and adds nothing: what comes is read.
fn messages(bug: &str) -> Outcome {
    on_two(bug, |nccl, number, id, bug| {
        let gpu = Gpu::open(number)?;
        let comm = joined(nccl, number, id)?;
        let (compute, messages) = (stream()?, stream()?);
        let numbers: Vec<f32> = (0..N).map(|i| (i * 2) as f32 + number as f32).collect();
        let rank = Rank {
            gpu: &gpu,
            comm,
            peer: 1 - number,
            compute,
            messages,
            ready: event()?,
            done: event()?,
            x: uploaded(&numbers, compute)?,
            y: allocate(N * 4, compute)?,
        };
        let got = exchange(nccl, &rank, number, bug)?;
        let theirs: Vec<f32> = (0..N)
            .map(|i| (i * 2) as f32 + (1 - number) as f32)
            .collect();
        compare(&got, &theirs)?;
        wait(compute, rank.done)?;
        free(&[rank.x, rank.y], compute)?;
        synchronize(compute)?;
        nccl.finalize(comm)?;
        nccl.destroy(comm)?;
        destroy(&[compute, messages], &[rank.ready, rank.done])?;
        gpu.close()
    })
}

fn exchange(nccl: &Nccl, rank: &Rank<'_>, number: c_int, bug: &str) -> Result<Vec<f32>, String> {
    let Rank {
        comm,
        compute,
        messages,
        ready,
        done,
        x,
        y,
        ..
    } = *rank;
    record(ready, compute)?;
    if bug != "what is sent is not yet there" {
        wait(messages, ready)?;
    }
    let first = number == 0;
    let numbers = match bug {
        "another count" if first => (N / 2, F32),
        "another type" if first => (N, I32),
        "no such type" => (N, 77),
        "memory that is too small" => (N * 2, F32),
        _ => (N, F32),
    };
    let peer = match bug {
        "no such peer" => 2,
        "a message to itself" => number,
        _ => rank.peer,
    };
    let (mut sent, mut received, mut on) = (x, y, messages);
    match bug {
        "no memory" => received = 0,
        "one piece of memory for both" => sent = y,
        "memory of the other device"
        | "a stream of the other device"
        | "the other device is current" => {
            Gpu::open(1 - number)?;
            let foreign = stream()?;
            match bug {
                "memory of the other device" => sent = uploaded(&vec![0f32; N], foreign)?,
                "a stream of the other device" => on = foreign,
                _ => {}
            }
            if bug == "memory of the other device" {
                synchronize(foreign)?;
            }
            if bug != "the other device is current" {
                call!(cuCtxSetCurrent(rank.gpu.context))?;
            }
        }
        "an end without a start" => nccl.end()?,
        _ => {}
    }
    if matches!(
        bug,
        "the receive before the send" | "the peer never receives"
    ) {
        // Ranks connect when they first meet; until then no group is in its stream.
        nccl.start()?;
        nccl.send(sent, numbers, peer, comm, on)?;
        nccl.receive(received, numbers, peer, comm, on)?;
        nccl.end()?;
        nccl.wait(comm)?;
    }
    if bug == "the receive before the send" {
        nccl.receive(received, numbers, peer, comm, on)?;
        nccl.wait(comm)?;
        nccl.send(sent, numbers, peer, comm, on)?;
        nccl.wait(comm)?;
        nccl.synchronize(messages)?;
    }
    if bug == "the peer never receives" {
        nccl.send(sent, (N, F32), peer, comm, on)?;
        nccl.wait(comm)?;
        // Who waits for the stream waits forever. The end of the process does not.
        return Err("as planned".to_owned());
    }
    if bug == "a message to itself" {
        nccl.send(sent, numbers, peer, comm, on)?;
    }
    nccl.start()?;
    nccl.send(
        sent,
        (N, if bug == "no such type" { 77 } else { F32 }),
        peer,
        comm,
        on,
    )?;
    nccl.receive(received, numbers, peer, comm, on)?;
    if bug == "an abort within a group" {
        nccl.abort(comm)?;
    }
    nccl.end()?;
    if bug == "the event before the poll" {
        record(done, messages)?;
    }
    if bug == "no poll after a group" {
        // One of several is in progress.
        for _ in 0..8 {
            nccl.start()?;
            nccl.send(sent, numbers, peer, comm, on)?;
            nccl.receive(received, numbers, peer, comm, on)?;
            nccl.end()?;
        }
    }
    if bug == "memory freed too early" {
        nccl.wait(comm)?;
        free(&[x], compute)?;
    }
    if bug != "the event before the poll" {
        nccl.wait(comm)?;
        record(done, messages)?;
    }
    if bug == "what is sent is overwritten" {
        upload(x, &vec![0f32; N], compute)?;
    }
    if bug != "what is received is read too early" {
        wait(compute, done)?;
    }
    if bug == "the event before the poll" {
        nccl.synchronize(compute)?;
        nccl.wait(comm)?;
    }
    nccl.synchronize(compute)?;
    let got = download(y, N, compute)?;
    synchronize(compute)?;
    Ok(got)
}
