//! Ranks that are threads of this process, with a GPU and a control plane each, as if they were processes: the double of NCCL connects
//! threads.

use std::net::TcpListener;
use std::thread;

use xdit_comm::processes::nccl::{NcclLibrary, NcclOptions, transport};
use xdit_comm::processes::{JobSecret, ProcessOptions, ProcessWorld, RankPlace, join};
use xdit_comm::{Error, Result};
use xdit_kernels::Device;

/// A port that is free now.
fn rendezvous() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::other)?;
    Ok(listener.local_addr().map_err(Error::other)?.to_string())
}

/// Runs work on each rank: with its number and the address of the first one. Returns whether all have succeeded.
pub(crate) fn on_each<W>(ranks: usize, work: W) -> bool
where
    W: Fn(usize, &str) -> Result<()> + Sync,
{
    let rendezvous = match rendezvous() {
        Ok(rendezvous) => rendezvous,
        Err(error) => {
            println!("{error}");
            return false;
        }
    };
    let (work, rendezvous) = (&work, rendezvous.as_str());
    let outcomes: Vec<Result<()>> = thread::scope(|scope| {
        let threads = (0..ranks).map(|rank| scope.spawn(move || work(rank, rendezvous)));
        let threads: Vec<_> = threads.collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        let panicked = |_| Err(Error::other("panicked"));
        ended.map(|end| end.unwrap_or_else(panicked)).collect()
    });
    for (rank, outcome) in outcomes.iter().enumerate() {
        if let Err(error) = outcome {
            println!("rank {rank}: {error}");
        }
    }
    outcomes.iter().all(Result::is_ok)
}

/// Joins the world as this rank, on a GPU.
pub(crate) fn enter(
    (rank, world_size): (usize, usize),
    rendezvous: &str,
    device: &Device,
    options: ProcessOptions,
) -> Result<ProcessWorld> {
    let place = RankPlace {
        rank,
        world_size,
        host: format!("node{rank}"),
        rendezvous: rendezvous.to_owned(),
        secret: JobSecret::default(),
        restart: 0,
        build: String::new(),
        plan: String::new(),
        numbers: Vec::new(),
    };
    let library = NcclLibrary::open(None)?;
    join(&place, options, |peers| {
        transport(peers, &library, device, NcclOptions::default())
    })
}
