//! The worlds of the tests.

use crate::{
    Error, Group, Result, Spec,
    processes::{
        JobSecret, Peers, ProcessOptions, ProcessWorld, RankPlace, Transport, local::Meeting,
        world::join_on,
    },
};
use std::{net::TcpListener, sync::Arc, time::Duration};
use xdit_kernels::{DType, Device, Tensor};

/// A deadline that no test waits for.
pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) fn one() -> Tensor {
    Tensor::from_slice(&[1f32], [1], &Device::cpu()).expect("one number")
}

pub(super) fn spec() -> Spec {
    Spec::new([1], DType::F32)
}

/// A rank of a world on this host, with a host name of its own.
pub(super) fn place(rank: usize, world_size: usize, rendezvous: &str) -> RankPlace {
    RankPlace {
        rank,
        world_size,
        host: format!("node{rank}"),
        rendezvous: rendezvous.to_owned(),
        secret: JobSecret::new("of this job").expect("it is short"),
        restart: 0,
        build: "build 1".to_owned(),
        plan: "plan 1".to_owned(),
        numbers: Vec::new(),
    }
}

/// Sockets in the folder of temporary files.
pub(super) fn sockets(peers: &Peers) -> Result<Box<dyn Transport>> {
    let meeting = Meeting::open(&std::env::temp_dir())?;
    let addresses = peers.all_gather(&meeting.address())?;
    let rank = peers.rank();
    let local = meeting.connect(rank, &addresses, &Device::cpu(), || peers.check())?;
    Ok(Box::new(local))
}

/// Runs `work` on ranks that are threads. An error of a rank is told to the others, as a program would.
pub(super) fn run_each<T: Send + 'static>(
    world_size: usize,
    options: ProcessOptions,
    work: impl Fn(&ProcessWorld) -> Result<T> + Send + Sync + 'static,
) -> Vec<Result<T>> {
    run_over(world_size, options, sockets, work)
}

/// The same over another transport.
pub(super) fn run_over<T: Send + 'static>(
    world_size: usize,
    options: ProcessOptions,
    transport: fn(&Peers) -> Result<Box<dyn Transport>>,
    work: impl Fn(&ProcessWorld) -> Result<T> + Send + Sync + 'static,
) -> Vec<Result<T>> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let rendezvous = listener.local_addr().expect("it has one").to_string();
    let mut listener = Some(listener);
    let work = Arc::new(work);
    let ranks: Vec<_> = (0..world_size)
        .map(|rank| {
            let (work, listener) = (work.clone(), listener.take());
            let place = place(rank, world_size, &rendezvous);
            std::thread::spawn(move || {
                let world = join_on(listener, &place, options, transport)?;
                let outcome = work(&world);
                if let Err(error) = &outcome {
                    world.fail(&error.to_string());
                }
                outcome
            })
        })
        .collect();
    let panicked = |_| Err(Error::other("panicked"));
    ranks
        .into_iter()
        .map(|rank| rank.join().unwrap_or_else(panicked))
        .collect()
}

/// The results of all ranks, or the first error.
pub(super) fn run<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(&Group) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    run_each(world_size, ProcessOptions::default(), move |world| {
        work(world.group())
    })
    .into_iter()
    .collect()
}

/// Errors of all ranks.
pub(super) fn errors<T: std::fmt::Debug + Send + 'static>(
    world_size: usize,
    work: impl Fn(&Group) -> Result<T> + Send + Sync + 'static,
) -> Vec<Error> {
    let options = ProcessOptions {
        deadline: LONG,
        ..ProcessOptions::default()
    };
    let outcomes = run_each(world_size, options, move |world| work(world.group()));
    let outcomes = outcomes.into_iter();
    outcomes
        .map(|outcome| outcome.expect_err("no rank can succeed"))
        .collect()
}
