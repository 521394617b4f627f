//! Who is let in, and what the others are told.

use super::support::{place, sockets};
use crate::{
    Error, Result,
    processes::{
        JobSecret, ProcessOptions, ProcessWorld, RankPlace, join,
        wire::{Frame, FrameDecoder},
        world::join_on,
    },
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

type Joining = JoinHandle<Result<ProcessWorld>>;

/// A listener for rank 0, and its address.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has one").to_string();
    (listener, address)
}

fn start(listener: Option<TcpListener>, place: RankPlace, limit: Duration) -> Joining {
    let options = ProcessOptions {
        rendezvous: limit,
        ..ProcessOptions::default()
    };
    std::thread::spawn(move || join_on(listener, &place, options, sockets))
}

const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(20);

fn text(joining: Joining) -> String {
    let outcome = joining.join().expect("no panic");
    let error = outcome.expect_err("it is refused");
    assert!(matches!(error, Error::Rendezvous(_)), "{error}");
    error.to_string()
}

/// Of a failure that rank 0 has told to this rank.
fn told(joining: Joining) -> String {
    let outcome = joining.join().expect("no panic");
    let error = outcome.expect_err("it is refused");
    assert!(matches!(error, Error::NotBegun(_)), "{error}");
    error.to_string()
}

#[test]
fn what_differs_ends_the_job_with_both_sides() {
    let other = |change: fn(&mut RankPlace)| {
        let (listener, address) = listener();
        let zero = start(Some(listener), place(0, 3, &address), LONG);
        let one = start(None, place(1, 3, &address), LONG);
        let mut two = place(2, 3, &address);
        change(&mut two);
        let two = start(None, two, LONG);
        let texts = [zero, one, two].map(told);
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        texts[0].clone()
    };
    let build = other(|place| place.build = "build 2".to_owned());
    let both =
        "rank 0 (node0) refuses rank 2 (node2): its build is build 2, that of rank 0 is build 1";
    assert!(build.starts_with(both), "{build}");
    let plan = other(|place| place.plan = "plan 2".to_owned());
    assert!(
        plan.contains("its plan is plan 2, that of rank 0 is plan 1"),
        "{plan}"
    );
    let size = other(|place| place.world_size = 4);
    assert!(
        size.contains("its number of ranks is 4, that of rank 0 is 3"),
        "{size}"
    );
}

#[test]
fn strangers_do_not_disturb() {
    let (listener, address) = listener();
    let place = |rank, world_size, address: &str| RankPlace {
        restart: 2,
        ..place(rank, world_size, address)
    };
    let zero = start(Some(listener), place(0, 2, &address), LONG);
    let mut of_another_job = place(1, 2, &address);
    of_another_job.secret = JobSecret::new("of another job").expect("it is short");
    let refused = text(start(None, of_another_job, LONG));
    assert!(
        refused.contains("rank 1 (node1): it has another job secret"),
        "{refused}"
    );
    assert!(!refused.contains("job secret of"), "{refused}");
    let mut left_over = place(1, 2, &address);
    left_over.restart = 1;
    let refused = text(start(None, left_over, LONG));
    let both = "its restart count is 1, that of rank 0 is 2";
    assert!(refused.contains(both), "{refused}");
    let twice = text(start(None, place(0, 2, &address), LONG));
    assert!(
        twice.contains("rank 0 (node0, process") && twice.contains("already"),
        "{twice}"
    );
    // Bytes of another protocol, and none at all.
    let mut stranger = TcpStream::connect(&address).expect("it listens");
    stranger
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("it reads");
    let _silent = TcpStream::connect(&address).expect("it listens");
    let one = start(None, place(1, 2, &address), LONG);
    let worlds = [zero, one].map(|joining| joining.join().expect("no panic").expect("both come"));
    let hosts: Vec<&str> = worlds[1].peers().iter().map(|peer| &*peer.host).collect();
    assert_eq!(hosts, ["node0", "node1"]);
    let late = text(start(None, place(1, 2, &address), SHORT));
    assert!(late.contains("comes twice"), "{late}");
}

#[test]
fn another_version_is_told_both_versions() {
    let (listener, address) = listener();
    let zero = start(Some(listener), place(0, 2, &address), LONG);
    let mut hello = vec![0; 4];
    hello.push(0);
    hello.extend(b"xdit-rs\0");
    hello.extend(7_u64.to_le_bytes());
    hello.extend(b"what only version 7 knows");
    let length = hello.len() as u32 - 4;
    hello[..4].copy_from_slice(&length.to_le_bytes());
    let mut stream = TcpStream::connect(&address).expect("it listens");
    stream.write_all(&hello).expect("it reads");
    let (mut decoder, mut chunk) = (FrameDecoder::default(), [0; 512]);
    let frame = loop {
        let read = stream.read(&mut chunk).expect("it answers");
        assert!(read > 0, "it answers");
        decoder.push(&chunk[..read]);
        if let Some(frame) = decoder.next().expect("a frame") {
            break frame;
        }
    };
    let Frame::Refused(reason) = frame else {
        panic!("{frame:?}");
    };
    assert!(
        reason.contains("version 7, that of rank 0 has version 2"),
        "{reason}"
    );
    drop(stream);
    let one = start(None, place(1, 2, &address), LONG);
    let worlds = [zero, one].map(|joining| joining.join().expect("no panic"));
    assert!(worlds.iter().all(Result::is_ok));
}

#[test]
fn missing_ranks_are_named() {
    let (listener, address) = listener();
    let limit = Duration::from_secs(2);
    let two = start(None, place(2, 5, &address), limit);
    let zero = start(Some(listener), place(0, 5, &address), limit);
    for text in [text(zero), told(two)] {
        assert_eq!(
            text,
            "ranks 1, 3 and 4 have not come within 2.0 s, of 5 ranks"
        );
    }
    // No program may listen at a free port of this machine before the rank comes, so it is one that nobody gets by chance.
    let lonely = text(start(None, place(1, 2, "127.0.0.1:1"), Duration::ZERO));
    assert!(
        lonely.contains("rank 1 cannot reach rank 0 at 127.0.0.1:1 "),
        "{lonely}"
    );
    assert!(lonely.contains("refused"), "{lonely}");
}

#[test]
fn a_rendezvous_may_take_longer_than_the_limit_of_silence() {
    let (listener, address) = listener();
    let options = ProcessOptions {
        beat: Duration::from_millis(100),
        silence: Duration::from_secs(1),
        ..ProcessOptions::default()
    };
    let start = |listener, rank: usize| {
        let place = place(rank, 3, &address);
        std::thread::spawn(move || {
            join_on(listener, &place, options, sockets)?
                .group()
                .barrier()
        })
    };
    let first = [start(Some(listener), 0), start(None, 1)];
    std::thread::sleep(options.silence * 5 / 2);
    let last = start(None, 2);
    for joining in first.into_iter().chain([last]) {
        let passed = joining.join().expect("no panic");
        passed.expect("nobody is lost");
    }
}

#[test]
fn rank_0_reaches_itself_whatever_it_is_bound_to() {
    for address in ["0.0.0.0:0", "[::]:0", "127.0.0.1:0"] {
        // Some machines have no IPv6.
        let Ok(listener) = TcpListener::bind(address) else {
            continue;
        };
        let zero = start(Some(listener), place(0, 1, address), LONG);
        let world = zero.join().expect("no panic").expect("it reaches itself");
        assert_eq!(world.peers().len(), 1);
    }
}

#[test]
fn a_rank_that_ends_before_all_have_come_is_named() {
    let (listener, address) = listener();
    let began = Instant::now();
    let zero = start(Some(listener), place(0, 3, &address), LONG);
    let two = start(None, place(2, 3, &address), LONG);
    let mut stream = TcpStream::connect(&address).expect("it listens");
    let hello = crate::processes::hello::Hello::of(&place(1, 2, &address)).expect("it fits");
    let mut hello = hello;
    hello.world_size = 3;
    // All but rank 1 are there; it comes and goes.
    stream
        .write_all(&Frame::Hello(hello).encode()[..20])
        .expect("it reads");
    drop(stream);
    let one = start(None, place(1, 3, &address), LONG);
    let worlds = [zero, one, two].map(|joining| joining.join().expect("no panic"));
    assert!(worlds.iter().all(Result::is_ok), "half a hello is none");
    drop(worlds);
    let (listener, address) = self::listener();
    let zero = start(Some(listener), place(0, 3, &address), LONG);
    let hello = crate::processes::hello::Hello::of(&place(1, 3, &address)).expect("it fits");
    let mut stream = TcpStream::connect(&address).expect("it listens");
    stream
        .write_all(&Frame::Hello(hello).encode())
        .expect("it reads");
    // The first beat: it has been let in.
    stream.read_exact(&mut [0; 5]).expect("a beat");
    drop(stream);
    let lost = told(zero);
    assert!(
        lost.starts_with("rank 1 (node1) is lost before all ranks have come"),
        "{lost}"
    );
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
}

#[test]
fn ports_in_use_and_addresses_that_are_none() {
    let options = ProcessOptions::default();
    let (busy, address) = listener();
    let error = join(&place(0, 2, &address), options, sockets).expect_err("it is busy");
    let port = busy.local_addr().expect("it has one").port();
    let told = format!("rank 0 cannot listen on port {port}: another program uses it");
    assert!(error.to_string().starts_with(&told), "{error}");
    for wrong in ["node1", "node1:", ":29500", "node1:99999", ""] {
        let error = join(&place(1, 2, wrong), options, sockets).expect_err("no address");
        assert!(error.to_string().contains("expected host:port"), "{error}");
    }
    let error = join(&place(2, 2, &address), options, sockets).expect_err("no such rank");
    assert!(
        error.to_string().contains("no rank 2 among 2 ranks"),
        "{error}"
    );
    // Another program answers.
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = busy.accept().expect("somebody comes");
        stream
            .write_all(b"SSH-2.0-OpenSSH_9.6\r\n")
            .expect("it reads");
        stream
    });
    let error = join(&place(1, 2, &address), options, sockets).expect_err("no rank 0");
    assert!(
        error.to_string().contains("is not rank 0 of this program"),
        "{error}"
    );
    drop(answers.join());
}

#[test]
fn names_and_both_kinds_of_addresses_lead_to_rank_0() {
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        // Another test may take the port between two uses.
        let met = (0..20).any(|_| {
            let Ok(free) = TcpListener::bind(format!("{host}:0")) else {
                assert_eq!(host, "[::1]", "this machine has IPv4");
                return true;
            };
            let port = free.local_addr().expect("it has one").port();
            drop(free);
            let of_this_test = |rank: usize| RankPlace {
                secret: JobSecret::new("of this test alone").expect("it is short"),
                ..place(rank, 2, &format!("{host}:{port}"))
            };
            // Rank 1 starts first.
            let one = start(None, of_this_test(1), LONG);
            std::thread::sleep(Duration::from_millis(30));
            match join(&of_this_test(0), ProcessOptions::default(), sockets) {
                Err(error) if error.to_string().contains("another program uses it") => false,
                zero => {
                    let one = one.join().expect("no panic");
                    assert!(zero.is_ok() && one.is_ok(), "{zero:?} {one:?}");
                    true
                }
            }
        });
        assert!(met, "no port stays free");
    }
}

#[test]
fn a_transport_that_cannot_start_ends_all() {
    let (listener, address) = listener();
    let zero = start(Some(listener), place(0, 2, &address), LONG);
    let options = ProcessOptions::default();
    let failing = |_: &_| Err(Error::other("no such device"));
    let one = join_on(None, &place(1, 2, &address), options, failing).expect_err("it fails");
    assert!(
        one.to_string()
            .ends_with("rank 1 (node1) is lost: no such device"),
        "{one}"
    );
    let zero = zero
        .join()
        .expect("no panic")
        .expect_err("rank 1 has failed");
    assert!(
        zero.to_string()
            .ends_with("rank 1 (node1) is lost: no such device"),
        "{zero}"
    );
}

#[test]
fn a_restarted_job_waits_until_the_last_attempt_has_ended() {
    let (listener, address) = listener();
    let old = start(Some(listener), place(0, 2, &address), SHORT);
    let again = |rank: usize| RankPlace {
        restart: 1,
        ..place(rank, 2, &address)
    };
    let one = start(None, again(1), LONG * 2);
    assert!(
        text(old).contains("rank 1 has not come"),
        "it belongs to the next attempt"
    );
    // Another test may have the port for a while; rank 1 tries again meanwhile.
    let began = Instant::now();
    let listener = loop {
        match TcpListener::bind(&address) {
            Ok(listener) => break listener,
            Err(error) => assert!(began.elapsed() < LONG, "the port stays busy: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let zero = start(Some(listener), again(0), LONG);
    let worlds = [zero, one].map(|joining| joining.join().expect("no panic"));
    assert!(worlds.iter().all(Result::is_ok), "{worlds:?}");
}
