//! Ranks that are processes of their own: killed, stopped, cut off, and failing by themselves, at random moments.

use super::support::{one, place, sockets, spec};
use crate::{
    Error, Group, ReduceOp, Result,
    processes::{ProcessOptions, world::join_on},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How many ranks there are.
const RANKS: usize = 4;
/// How long a process may be silent in these tests. Some processes at once on a busy machine need time for a beat.
const SILENCE: Duration = Duration::from_secs(4);
/// How long the others may take after the event, or after the limit of silence. The promise is 5 s; four processes on a busy
/// machine of two cores get twice that.
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// SIGKILL.
    Killed,
    /// SIGSTOP.
    Stopped,
    /// Its connection to rank 0 brings nothing more, in either direction.
    CutOff,
    /// Its work returns an error.
    Fails,
}

/// Not a test by itself: a rank at work, which the tests start as a process.
#[test]
#[ignore = "run by other tests, in processes of their own"]
fn child() {
    // The test harness takes them for names of tests, and has none of these names.
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| {
        let mut values = arguments.iter().filter_map(|it| it.strip_prefix(name));
        values.next_back().expect("a test gives it").to_owned()
    };
    let rank: usize = argument("rank=").parse().expect("a number");
    let fails_at: usize = argument("fails_at=").parse().expect("a number");
    let options = ProcessOptions {
        silence: SILENCE,
        beat: Duration::from_millis(200),
        ..ProcessOptions::default()
    };
    let mut rendezvous = argument("rendezvous=");
    let listener = (rank == 0).then(|| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    if let Some(listener) = &listener {
        rendezvous = listener.local_addr().expect("it has one").to_string();
        println!("\nADDRESS {rendezvous}");
    }
    let place = place(rank, RANKS, &rendezvous);
    let world = join_on(listener, &place, options, sockets).expect("all come");
    let error = work(world.group(), fails_at).expect_err("it ends with an error only");
    let text = error.to_string();
    world.fail(&text);
    println!("\nERROR {}", text.replace('\n', " "));
    std::io::stdout().flush().ok();
    std::process::exit(3);
}

/// Steps without an end: collectives, messages, exchanges, groups.
fn work(group: &Group, fails_at: usize) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    group.barrier()?;
    println!("\nREADY");
    let pair = group.split(me % 2, me)?;
    for step in 0.. {
        if step == fails_at {
            return Err(Error::other("out of luck"));
        }
        group.all_reduce(&one(), ReduceOp::Sum)?;
        let passing = group.start_send_recv(&one(), (me + 1) % n, spec(), (me + n - 1) % n)?;
        pair.all_gather(&one(), &[spec(); RANKS / 2])?;
        passing.wait()?;
        if step % 8 == 0 {
            group.control().all_gather(&[step as u8])?;
        }
        if step % 16 == me {
            // One computes, the others wait.
            std::thread::sleep(Duration::from_millis(3));
            group.progress()?;
        }
    }
    Ok(())
}

/// Passes bytes on between a rank and rank 0, until it is cut.
struct Proxy {
    address: String,
    cut: Arc<AtomicBool>,
}

impl Proxy {
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one").to_string();
        let cut = Arc::new(AtomicBool::new(false));
        let own = cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends.map(|(a, b)| (a.try_clone(), b.try_clone())) {
                    let (mut from, mut to) = (from.expect("a clone"), to.expect("a clone"));
                    let cut = own.clone();
                    std::thread::spawn(move || {
                        let mut chunk = [0; 4096];
                        while let Ok(read) = from.read(&mut chunk) {
                            if cut.load(Ordering::Acquire) {
                                // The connection stays, and is silent.
                                std::thread::sleep(Duration::from_secs(60));
                            }
                            if read == 0 || to.write_all(&chunk[..read]).is_err() {
                                to.shutdown(std::net::Shutdown::Both).ok();
                                return;
                            }
                        }
                    });
                }
            }
        });
        Self { address, cut }
    }
}

/// Processes that end with this value, whatever the test found.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn start(rank: usize, rendezvous: &str, fails_at: usize) -> Child {
    Command::new(std::env::current_exe().expect("this test has a file"))
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "processes::tests::faults::child",
        ])
        .arg(format!("rank={rank}"))
        .arg(format!("rendezvous={rendezvous}"))
        .arg(format!("fails_at={fails_at}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// One world in which `culprit` has a fault, `moment` after all have begun.
fn inject(fault: Fault, culprit: usize, moment: Duration) {
    let fails_at = |rank: usize| match fault {
        Fault::Fails if rank == culprit => moment.as_millis() as usize,
        _ => usize::MAX,
    };
    let mut owner = Children(vec![start(0, "its own", fails_at(0))]);
    let children = &mut owner.0;
    let lines_of =
        |child: &mut Child| BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut outputs = vec![lines_of(&mut children[0])];
    let address = outputs[0].find_map(|line| Some(line.ok()?.strip_prefix("ADDRESS ")?.to_owned()));
    let address = address.expect("rank 0 listens");
    let proxy = Proxy::to(address.clone());
    for rank in 1..RANKS {
        let through = match fault {
            Fault::CutOff if rank == culprit => &proxy.address,
            _ => &address,
        };
        children.push(start(rank, through, fails_at(rank)));
        outputs.push(lines_of(&mut children[rank]));
    }
    for lines in &mut outputs {
        assert!(
            lines.any(|line| line.is_ok_and(|line| line == "READY")),
            "all begin"
        );
    }
    let mut limit = SOON;
    let tell = |signal: &str, child: &Child| {
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.expect("there is kill").success());
    };
    if fault != Fault::Fails {
        std::thread::sleep(moment);
    }
    let began = Instant::now();
    match fault {
        Fault::Killed => children[culprit].kill().expect("it runs"),
        Fault::Stopped => {
            tell("-STOP", &children[culprit]);
            limit += SILENCE;
        }
        Fault::CutOff => {
            proxy.cut.store(true, Ordering::Release);
            limit += SILENCE;
        }
        // It fails after as many steps as `moment` has milliseconds, and a step of four busy processes may take 10 ms.
        Fault::Fails => limit += moment * 10,
    }
    for (rank, lines) in outputs.into_iter().enumerate() {
        let child = &mut children[rank];
        if rank == culprit && matches!(fault, Fault::Killed | Fault::Stopped) {
            continue;
        }
        let errors: Vec<String> = lines
            .map_while(std::result::Result::ok)
            .filter_map(|line| line.strip_prefix("ERROR ").map(str::to_owned))
            .collect();
        let ended = child.wait().expect("it ends");
        let told =
            format!("{fault:?} of rank {culprit} after {moment:?}: rank {rank} says {errors:?}");
        assert_eq!(ended.code(), Some(3), "{told}");
        assert!(
            began.elapsed() < limit,
            "{told}, after {:?}",
            began.elapsed()
        );
        let [error] = &errors[..] else {
            panic!("{told}");
        };
        let named = format!("rank {culprit} (node{culprit}) is lost: ");
        let own = rank == culprit && fault == Fault::Fails;
        // Who is cut off from rank 0 sees that one silent.
        let cut = rank == culprit && fault == Fault::CutOff;
        assert!(own || cut || error.contains(&named), "{told}");
        assert!(!own || error == "out of luck", "{told}");
        assert!(
            !cut || error.contains("rank 0 (node0) is lost: no sign of life"),
            "{told}"
        );
    }
}

/// Several worlds after each other, with pseudo-random culprits and moments.
fn loops(fault: Fault, count: usize) {
    for i in 0..count {
        let culprit = match fault {
            // Rank 0 is the one that the others are cut off from.
            Fault::CutOff => 1 + i % (RANKS - 1),
            _ => i % RANKS,
        };
        let moment = ((i as u64 * 0x9e37_79b9) >> 3) % 60;
        inject(fault, culprit, Duration::from_millis(moment));
    }
}

#[test]
fn a_killed_process_is_named_by_all_others() {
    loops(Fault::Killed, 12);
}

#[test]
fn a_process_that_fails_is_named_by_all_others() {
    loops(Fault::Fails, 8);
}

#[test]
fn a_stopped_process_is_named_by_all_others() {
    std::thread::scope(|scope| {
        for culprit in 0..2 {
            let moment = Duration::from_millis(20 * culprit as u64);
            scope.spawn(move || inject(Fault::Stopped, culprit, moment));
        }
    });
}

#[test]
fn a_process_that_is_cut_off_is_named_by_all_others() {
    loops(Fault::CutOff, 1);
}

#[test]
#[ignore = "takes some minutes"]
fn two_hundred_faults() {
    for fault in [Fault::Killed, Fault::Fails, Fault::Stopped, Fault::CutOff] {
        loops(fault, 50);
    }
}
