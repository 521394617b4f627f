//! Tests of the MPI transport, between the processes of `mpirun`. `ci/mpi.sh` runs them.
//!
//!     mpirun -n 4 mpi-ranks [--largest-count BYTES] [PART]...
//!
//! Parts: `conformance` (the suite of xdit-comm), `own`, `alone`, `groups`, `huge` (needs 2 GiB a rank and more), and the faults `disagree`,
//! `failed`, `killed`, `killed-busy` and `killed-early`, one of them at a time. Without any, the first two run.

mod checks;
mod faults;
mod world;

use std::{process::ExitCode, time::Instant};
use xdit_comm::{
    Error, Group, Result, conformance,
    processes::mpi::{Mpi, MpiOptions},
};
use xdit_kernels::Device;

fn main() -> ExitCode {
    let mut options = MpiOptions::default();
    let mut parts = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--largest-count" => {
                let bytes = arguments.next().and_then(|bytes| bytes.parse().ok());
                options.largest_count = bytes.expect("a number of bytes");
            }
            _ => parts.push(argument),
        }
    }
    if parts.is_empty() {
        parts = ["conformance", "own"].map(str::to_owned).to_vec();
    }
    let began = Instant::now();
    match run(options, &parts) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAULT),
        Err(error) => {
            eprintln!("after {:.1?}: {error}", began.elapsed());
            ExitCode::FAILURE
        }
    }
}

/// The exit code after a fault of which the ranks have learned, as they should.
const FAULT: u8 = 3;

/// Returns whether no rank has failed.
fn run(options: MpiOptions, parts: &[String]) -> Result<bool> {
    let mpi = Mpi::init(options)?;
    let rank = mpi.rank();
    if parts == ["killed-early"] {
        return faults::killed_early(&mpi).map(|()| false);
    }
    let world = world::join(&mpi, |peers| mpi.transport(peers, &Device::cpu()))?;
    for part in parts {
        let began = Instant::now();
        let group = world.group();
        let fault = match part.as_str() {
            "conformance" => pass(group, conformance::CHECKS).map(|()| false),
            "own" => pass(group, checks::CHECKS).map(|()| false),
            "alone" => pass(group, &[("alone", checks::ends_alone)]).map(|()| false),
            "groups" => pass(group, &[("many groups", checks::many_groups)]).map(|()| false),
            "huge" => pass(group, &[("huge", checks::huge)]).map(|()| false),
            "disagree" => faults::disagree(group).map(|()| true),
            "failed" => faults::failed(group).map(|()| true),
            "killed" => faults::killed(group).map(|()| true),
            "killed-busy" => faults::killed_busy(group).map(|()| true),
            other => Err(Error::other(format!("no part {other}"))),
        };
        let fault = match fault {
            Ok(fault) => fault,
            Err(error) => {
                world.fail(&error.to_string());
                return Err(error);
            }
        };
        if fault || rank == 0 {
            println!(
                "{part}: rank {rank} of {} after {:.1?}",
                group.world_size(),
                began.elapsed()
            );
        }
        if fault {
            faults::linger();
            return Ok(false);
        }
    }
    drop(world);
    mpi.finalise().map(|()| true)
}

fn pass(group: &Group, checks: &[(&str, conformance::Check)]) -> Result<()> {
    for (name, check) in checks {
        check(group).map_err(|error| Error::other(format!("{name}: {error}")))?;
    }
    Ok(())
}
