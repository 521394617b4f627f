//! What comes to rank 0 before all ranks have come: a hello without an end, and ranks that disagree already.

use super::support::{LONG, place, sockets};
use crate::{
    Error, Op,
    processes::{
        JobSecret, ProcessOptions, RankPlace, cannot_join,
        hello::Hello,
        hub::{ControlHub, HELLO},
        outbox::Outbox,
        switch::Switch,
        wire::{Frame, FrameDecoder, Posted},
        world::join_on,
    },
    threads::agree::CallSpecs,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Sends a long hello byte by byte until the connection is closed, for 10 s at most. Returns how long that took.
fn trickle(address: &str) -> JoinHandle<Duration> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    std::thread::spawn(move || {
        let began = Instant::now();
        let hello = 4000_u32.to_le_bytes().into_iter().chain([0; 196]);
        for byte in hello {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        began.elapsed()
    })
}

#[test]
fn a_hello_that_arrives_byte_by_byte_is_cut_off_and_holds_nobody() {
    let hub = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one").to_string();
        let own = Hello::of(&place(0, 2, &address)).expect("it fits");
        let hub = ControlHub::start(listener, own, ProcessOptions::default());
        (hub.expect("it starts"), address)
    };
    let slack = Duration::from_secs(2);
    let ((first, address), (second, other)) = (hub(), hub());
    let (stays, leaves) = (trickle(&address), trickle(&other));
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    drop(second);
    assert!(began.elapsed() < slack, "{:?}", began.elapsed());
    let limits = [(leaves, Duration::ZERO), (stays, HELLO)];
    for (stranger, limit) in limits {
        let took = stranger.join().expect("no panic");
        assert!(took < limit + slack, "{took:?} of {limit:?}");
        assert!(took >= limit / 2, "{took:?} of {limit:?}");
    }
    drop(first);
}

#[test]
fn a_rank_that_cannot_come_ends_the_wait_of_the_others_with_its_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has one").to_string();
    let mut listener = Some(listener);
    let ranks: Vec<_> = (0..2)
        .map(|rank| {
            let (listener, place) = (listener.take(), place(rank, 4, &address));
            std::thread::spawn(move || {
                join_on(listener, &place, ProcessOptions::default(), sockets)
            })
        })
        .collect();
    // Strangers, and a rank that is there, say it too.
    let stranger = RankPlace {
        secret: JobSecret::default(),
        ..place(2, 4, &address)
    };
    assert!(cannot_join(&stranger, "of another job", LONG));
    assert!(cannot_join(&place(0, 4, &address), "of rank 0", LONG));
    let absent = RankPlace {
        plan: "none yet".to_owned(),
        ..place(2, 4, &address)
    };
    assert!(cannot_join(&absent, "its disk is full", LONG));
    // One that comes later hears it as well.
    let late = join_on(
        None,
        &place(3, 4, &address),
        ProcessOptions::default(),
        sockets,
    );
    let ended = ranks.into_iter().map(|rank| rank.join().expect("no panic"));
    for ended in ended.chain([late]) {
        let error = ended.expect_err("the world cannot begin");
        assert!(matches!(error, Error::NotBegun(_)), "{error}");
        assert_eq!(error.to_string(), "rank 2 (node2): its disk is full");
    }
}

#[test]
fn ranks_that_disagree_before_all_have_come_are_refused_with_both_calls() {
    let hello = |rank| Hello::of(&place(rank, 3, "node0:1")).expect("it fits");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stream = TcpStream::connect(listener.local_addr().expect("it has one"));
    let (outbox, send_all) = Outbox::new(stream.expect("it listens"), Duration::from_secs(20));
    let sender = std::thread::spawn(send_all);
    let mut switch = Switch::new(hello(0));
    for rank in 0..2 {
        switch.enter(&hello(rank), &outbox).expect("it fits");
    }
    for (rank, color) in [(0, None), (1, Some(0))] {
        let barrier = || {
            Posted::Call(CallSpecs {
                op: Op::Barrier,
                gives: vec![],
                expects: vec![],
            })
        };
        let what = color.map_or_else(barrier, |color| Posted::Split { color, key: 0 });
        switch.hear(rank, Frame::Post { group: 0, what });
    }
    let late = switch.enter(&hello(2), &outbox);
    let late = match *late.expect_err("the world cannot begin") {
        Frame::Refused(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert!(late.starts_with("rank 1 and rank 0 disagree"), "{late}");
    drop((switch, outbox));
    let (mut told, mut decoder) = (vec![], FrameDecoder::default());
    let (mut stream, _) = listener.accept().expect("it has connected");
    stream.read_to_end(&mut told).expect("it is closed");
    sender.join().expect("no panic");
    decoder.push(&told);
    for _ in 0..2 {
        let frame = decoder.next();
        assert!(
            matches!(&frame, Ok(Some(Frame::Refused(reason))) if *reason == late),
            "{frame:?}"
        );
    }
}
