//! Bytes that no process of this program sends.

use super::support::place;
use crate::{
    Call, Loss, ReduceOp, Spec,
    processes::{
        JobSecret, Peer, ProcessOptions,
        hello::Hello,
        hub::ControlHub,
        matching::{Ledger, Rejected},
        outbox::Outbox,
        switch::Switch,
        wire::{Awaited, Frame, FrameDecoder, Posted},
    },
    threads::{agree::CallSpecs, state::WorldFailure},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};
use xdit_kernels::DType;

/// splitmix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A frame of each kind.
fn frames() -> Vec<Frame> {
    let hello = Hello::of(&place(1, 2, "node0:1")).expect("it fits");
    let spec = Spec::new([2, 3], DType::BF16);
    let call = |op, gives: usize, expects: usize| {
        Posted::Call(CallSpecs {
            op,
            gives: vec![spec; gives],
            expects: vec![spec; expects],
        })
    };
    let post = |what| Frame::Post { group: 0, what };
    let reason = "out of luck".to_owned();
    let peer = Peer {
        host: "node1".to_owned(),
        pid: 7,
    };
    let disagree = crate::Error::Disagree {
        rank: 0,
        other: 1,
        mine: "barrier".to_owned(),
        theirs: "split".to_owned(),
    };
    let seconds = Duration::from_secs(2);
    vec![
        Frame::Hello(hello.clone()),
        Frame::Welcome(vec![peer; 2]),
        Frame::Refused(reason.clone()),
        Frame::TurnedAway(reason.clone()),
        Frame::Beat,
        post(call(crate::Op::Send { dst: 0 }, 1, 0)),
        post(call(crate::Op::Recv { src: 0 }, 0, 1)),
        post(call(crate::Op::AllReduce(ReduceOp::Mean), 1, 1)),
        post(call(crate::Op::AllToAll, 2, 2)),
        post(Posted::Split { color: 1, key: 2 }),
        Frame::Exchange {
            group: 0,
            bytes: vec![1, 2, 3],
        },
        Frame::Exchanged {
            group: 0,
            number: 3,
            parts: vec![vec![1], vec![]],
        },
        Frame::Subgroup {
            group: 0,
            number: 1,
            subgroup: 2,
            members: vec![1, 0],
        },
        Frame::Wait {
            group: 0,
            targets: vec![
                (Awaited::Round(1), "barrier".to_owned()),
                (Awaited::Message { src: 0, number: 0 }, "recv".to_owned()),
                (Awaited::Receipt { dst: 0, number: 9 }, "send".to_owned()),
                (Awaited::Exchange(2), String::new()),
            ],
        },
        Frame::Overdue {
            is_exchange: true,
            limit: seconds,
        },
        Frame::Fail(Loss::Failed(reason.clone())),
        Frame::Fail(Loss::NoProgress(seconds)),
        Frame::Suspect(reason),
        Frame::Flush,
        Frame::Flushed,
        Frame::Failed(WorldFailure::Lost {
            rank: 1,
            reason: Loss::Silent(seconds),
        }),
        Frame::Failed(WorldFailure::of(&disagree)),
        Frame::Bye,
        Frame::CannotCome {
            hello,
            reason: "out of luck".to_owned(),
        },
    ]
}

/// Changes some bytes, cuts some off, or adds some.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        match dice.below(4) {
            0 => bytes.truncate(dice.below(bytes.len() + 1)),
            1 => bytes.extend(dice.next().to_le_bytes()),
            _ if bytes.is_empty() => {}
            2 => {
                let at = dice.below(bytes.len());
                bytes[at] = [0, 1, 255, dice.next() as u8][dice.below(4)];
            }
            _ => {
                let at = dice.below(bytes.len());
                bytes[at] ^= 1 << dice.below(8);
            }
        }
    }
}

#[test]
fn frames_come_back_in_any_pieces() {
    let all: Vec<u8> = frames().iter().flat_map(Frame::encode).collect();
    for size in [1, 3, 7, all.len()] {
        let mut decoder = FrameDecoder::default();
        let mut got = vec![];
        for piece in all.chunks(size) {
            decoder.push(piece);
            while let Some(frame) = decoder.next().expect("a frame") {
                got.push(frame);
            }
        }
        let texts = |frames: &[Frame]| frames.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>();
        assert_eq!(texts(&got), texts(&frames()));
    }
}

#[test]
fn what_only_rank_0_sends_is_refused_before_it_has_arrived() {
    let hello = Hello::of(&place(1, 2, "node0:1")).expect("it fits");
    for kind in [1, 2, 6, 10, 13, 15] {
        let mut decoder = FrameDecoder::of_rank();
        decoder.push(&Frame::Hello(hello.clone()).encode());
        assert!(matches!(decoder.next(), Ok(Some(Frame::Hello(_)))));
        // The beginning of a long frame.
        decoder.push(&(1_u32 << 20).to_le_bytes());
        decoder.push(&[kind, 0]);
        let refused = decoder.next().expect_err("it is of another direction");
        assert_eq!(refused, "a frame of another direction", "{kind}");
    }
}

#[test]
fn a_million_inputs_do_not_panic() {
    let valid: Vec<Vec<u8>> = frames().iter().map(Frame::encode).collect();
    let mut dice = Dice(7);
    let (mut taken, mut refused) = (0, 0);
    for i in 0..1_000_000 {
        let mut bytes = match i % 3 {
            0 => (0..dice.below(64)).map(|_| dice.next() as u8).collect(),
            _ => valid[dice.below(valid.len())].clone(),
        };
        damage(&mut bytes, &mut dice);
        let mut decoder = match i % 2 {
            0 => FrameDecoder::default(),
            _ => FrameDecoder::of_rank(),
        };
        decoder.push(&bytes);
        loop {
            match decoder.next() {
                Ok(Some(_)) => taken += 1,
                Ok(None) => break,
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
    }
    // Neither is a test that cannot fail.
    assert!(taken > 10_000 && refused > 10_000, "{taken} {refused}");
}

/// An outbox to nowhere.
fn nowhere() -> Outbox {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has one");
    let stream = TcpStream::connect(address).expect("it listens");
    Outbox::new(stream, Duration::from_secs(1)).0
}

#[test]
fn rank_0_survives_what_ranks_send() {
    let (valid, outbox) = (frames(), nowhere());
    let mut dice = Dice(11);
    let mut failed = 0;
    for _ in 0..3_000 {
        let own = Hello::of(&place(0, 2, "node0:1")).expect("it fits");
        let mut switch = Switch::new(own);
        for rank in 0..2 {
            let hello = Hello::of(&place(rank, 2, "node0:1")).expect("it fits");
            switch.enter(&hello, &outbox).expect("it fits");
        }
        for _ in 0..60 {
            let mut bytes = valid[3 + dice.below(valid.len() - 3)].encode();
            if dice.below(3) == 0 {
                damage(&mut bytes, &mut dice);
            }
            let mut decoder = FrameDecoder::default();
            decoder.push(&bytes);
            if let Ok(Some(frame)) = decoder.next() {
                switch.hear(dice.below(2), frame);
            }
        }
        failed += usize::from(switch.failure().is_some());
    }
    assert!(failed > 1_000, "{failed}");
}

#[test]
fn calls_that_nobody_else_starts_take_no_memory_for_ever() {
    let own = Hello::of(&place(0, 2, "node0:1")).expect("it fits");
    let (mut switch, outbox) = (Switch::new(own), nowhere());
    for rank in 0..2 {
        let hello = Hello::of(&place(rank, 2, "node0:1")).expect("it fits");
        switch.enter(&hello, &outbox).expect("it fits");
    }
    for _ in 0..1_000_000 {
        let call = Call {
            op: crate::Op::Barrier,
            gives: vec![],
            expects: vec![],
        };
        let what = Posted::Call(CallSpecs::of(&call));
        switch.hear(1, Frame::Post { group: 0, what });
        if switch.failure().is_some() {
            return;
        }
    }
    panic!("a million calls ahead");
}

#[test]
fn texts_of_any_length_fit_their_frames() {
    let long = "ä".repeat(1 << 16);
    let failure = WorldFailure::of(&crate::Error::Disagree {
        rank: 0,
        other: 1,
        mine: long.clone(),
        theirs: long.clone(),
    });
    let targets = vec![(Awaited::Round(1), long.clone()); 1024];
    let frames = [
        Frame::Wait { group: 0, targets },
        Frame::Failed(failure),
        Frame::Suspect(long),
    ];
    for frame in frames {
        let mut decoder = FrameDecoder::default();
        decoder.push(&frame.encode());
        assert!(matches!(decoder.next(), Ok(Some(_))));
    }
}

#[test]
fn too_large_a_sum_of_an_exchange_accuses_no_rank() {
    let mut ledger = Ledger::new(18);
    let refused = (0..18).find_map(|rank| ledger.exchange(rank, 0, vec![0; 16 << 20]).err());
    let Some(Rejected::Failure(failure)) = refused else {
        panic!("{refused:?}");
    };
    let error = failure.seen_by(0, "control exchange");
    assert_eq!(error.culprit(), None, "{error}");
    let sum = "the exchanges of a group that are not complete have 285212672 bytes or more; at most 268435456 are allowed";
    assert!(error.to_string().contains(sum), "{error}");
}

#[test]
fn a_hub_survives_bytes_over_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let own = Hello::of(&place(0, 2, "node0:1")).expect("it fits");
    // The ranks of this test send no beats.
    let options = ProcessOptions {
        silence: Duration::from_secs(60),
        ..ProcessOptions::default()
    };
    let hub = ControlHub::start(listener, own.clone(), options).expect("it starts");
    let mut valid: Vec<Vec<u8>> = frames().iter().map(Frame::encode).collect();
    // No damage makes the right secret of another one.
    let mut stranger = place(1, 2, "node0:1");
    stranger.secret = JobSecret::new("of another job").expect("it is short");
    let hello = Hello::of(&stranger).expect("it fits");
    let (last, reason) = (valid.len() - 1, "out of luck".to_owned());
    valid[0] = Frame::Hello(hello.clone()).encode();
    valid[last] = Frame::CannotCome { hello, reason }.encode();
    let mut dice = Dice(13);
    // Before the hello.
    for _ in 0..400 {
        let mut stream = TcpStream::connect(hub.addresses()[0]).expect("it listens");
        let at = dice.below(valid.len());
        let mut bytes = valid[if at == last { last } else { at.min(3) }].clone();
        damage(&mut bytes, &mut dice);
        stream.write_all(&bytes).ok();
    }
    // After it, as rank 1.
    let enter = |rank: usize| loop {
        let hello = Hello::of(&place(rank, 2, "node0:1")).expect("it fits");
        let mut stream = TcpStream::connect(hub.addresses()[0]).expect("it listens");
        stream
            .write_all(&Frame::Hello(hello).encode())
            .expect("it reads");
        // The length of the first frame. Without one, too many strangers are there.
        if stream.read_exact(&mut [0; 4]).is_ok() {
            return stream;
        }
    };
    // Rank 0 hears a beat, rank 1 that all have come.
    let (mut zero, mut one) = (enter(0), enter(1));
    let timeout = Some(Duration::from_secs(40));
    zero.set_read_timeout(timeout).expect("a socket has one");
    let (mut decoder, mut chunk) = (FrameDecoder::default(), [0; 4096]);
    decoder.push(&1_u32.to_le_bytes());
    let mut welcome = false;
    let failure = loop {
        let read = zero.read(&mut chunk).expect("rank 0 hears");
        assert!(read > 0, "rank 0 hears the reason first");
        decoder.push(&chunk[..read]);
        let mut failed = None;
        while let Some(frame) = decoder.next().expect("a frame") {
            match frame {
                Frame::Welcome(_) => welcome = true,
                Frame::Failed(failure) => failed = Some(failure),
                _ => {}
            }
        }
        if let Some(failure) = failed {
            break failure;
        }
        if welcome {
            for _ in 0..200 {
                let mut bytes = valid[3 + dice.below(valid.len() - 3)].clone();
                damage(&mut bytes, &mut dice);
                one.write_all(&bytes).ok();
            }
        }
    };
    assert!(
        matches!(failure, WorldFailure::Lost { rank: 1, .. }),
        "{failure:?}"
    );
    let began = Instant::now();
    drop((zero, one));
    drop(hub);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}
