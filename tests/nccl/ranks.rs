//! Ranks on GPUs that NCCL connects, for the tests: `nccl-ranks RANKS PART…`. Each rank is a thread of this process with a GPU and a
//! control plane of its own, as if it were a process: the double of NCCL connects threads.

mod checks;
mod faults;

use std::net::TcpListener;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use xdit_comm::conformance::{self, Check};
use xdit_comm::processes::nccl::{NcclLibrary, NcclOptions, transport};
use xdit_comm::processes::{JobSecret, ProcessOptions, ProcessWorld, RankPlace, join};
use xdit_comm::{Error, Group, Result};
use xdit_kernels::Device;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let ranks = arguments.next().and_then(|ranks| ranks.parse().ok());
    let (Some(ranks), parts) = (ranks, arguments.collect::<Vec<_>>()) else {
        eprintln!("nccl-ranks RANKS PART…");
        return ExitCode::from(2);
    };
    let mut code = ExitCode::SUCCESS;
    for (rank, outcome) in run(ranks, &parts).into_iter().enumerate() {
        if let Err(error) = outcome {
            println!("rank {rank}: {error}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// A port that is free now.
fn rendezvous() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::other)?;
    Ok(listener.local_addr().map_err(Error::other)?.to_string())
}

/// Runs the parts on all ranks.
fn run(ranks: usize, parts: &[String]) -> Vec<Result<()>> {
    let rendezvous = match rendezvous() {
        Ok(rendezvous) => rendezvous,
        Err(error) => return vec![Err(error)],
    };
    thread::scope(|scope| {
        let start = |rank| {
            let rendezvous = rendezvous.clone();
            scope.spawn(move || rank_of(rank, ranks, rendezvous, parts))
        };
        let threads: Vec<_> = (0..ranks).map(start).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|end| end.unwrap_or_else(|_| Err(Error::other("panicked"))))
            .collect()
    })
}

fn rank_of(rank: usize, world_size: usize, rendezvous: String, parts: &[String]) -> Result<()> {
    if parts.iter().any(|part| part == "library") {
        return NcclLibrary::open(None).map(drop);
    }
    // Two ranks on one GPU, where a part asks for that.
    let shares = parts.iter().any(|part| part == "shared-gpu");
    let ordinal = if shares { 0 } else { rank as u32 };
    let device = Device::cuda(ordinal)?;
    let mut options = ProcessOptions::default();
    if parts.iter().any(|part| part == "circle") {
        options.deadline = Duration::from_secs(1);
    }
    let world = enter(rank, world_size, rendezvous, &device, options)?;
    if parts.iter().any(|part| part == "leaves") {
        return faults::leaves(world);
    }
    for part in parts {
        let group = world.group();
        let done = match part.as_str() {
            "conformance" => pass(group, conformance::CHECKS),
            "own" => pass(group, checks::CHECKS),
            "disagree" => faults::disagree(group),
            "circle" => faults::circle(group),
            "failed" => faults::failed(group),
            "broken" => faults::broken(group),
            other => Err(Error::other(format!("no part {other}"))),
        };
        if let Err(error) = done {
            world.fail(&error.to_string());
            return Err(error);
        }
    }
    Ok(())
}

fn enter(
    rank: usize,
    world_size: usize,
    rendezvous: String,
    device: &Device,
    options: ProcessOptions,
) -> Result<ProcessWorld> {
    let place = RankPlace {
        rank,
        world_size,
        host: format!("node{rank}"),
        rendezvous,
        secret: JobSecret::default(),
        restart: 0,
        build: String::new(),
        plan: String::new(),
    };
    let library = NcclLibrary::open(None)?;
    join(&place, options, |peers| {
        transport(peers, &library, device, NcclOptions::default())
    })
}

fn pass(group: &Group, checks: &[(&str, Check)]) -> Result<()> {
    for (name, check) in checks {
        check(group).map_err(|error| Error::other(format!("{name}: {error}")))?;
    }
    Ok(())
}
