//! Ranks on GPUs that NCCL connects, for the tests: `nccl-ranks RANKS PART…`.

mod checks;
mod faults;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use xdit_comm::conformance::{self, Check};
use xdit_comm::processes::ProcessOptions;
use xdit_comm::processes::nccl::NcclLibrary;
use xdit_comm::{Error, Group, Result};
use xdit_kernels::Device;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let ranks: Option<usize> = arguments.next().and_then(|ranks| ranks.parse().ok());
    let (Some(ranks), parts) = (ranks, arguments.collect::<Vec<_>>()) else {
        eprintln!("nccl-ranks RANKS PART…");
        return ExitCode::from(2);
    };
    let work = |rank, rendezvous: &str| rank_of((rank, ranks), rendezvous, &parts);
    match world::on_each(ranks, work) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn rank_of(place: (usize, usize), rendezvous: &str, parts: &[String]) -> Result<()> {
    let asks_for = |name: &str| parts.iter().any(|part| part == name);
    if asks_for("library") {
        return NcclLibrary::open(None).map(drop);
    }
    // Two ranks on one GPU, where a part asks for that.
    let device = Device::cuda(if asks_for("shared-gpu") {
        0
    } else {
        place.0 as u32
    })?;
    let mut options = ProcessOptions::default();
    if asks_for("circle") {
        options.deadline = Duration::from_secs(1);
    }
    let world = world::enter(place, rendezvous, &device, options)?;
    if asks_for("leaves") {
        return faults::leaves(world);
    }
    for part in parts {
        let group = world.group();
        let done = match part.as_str() {
            "conformance" => pass(group, conformance::CHECKS),
            "own" => pass(group, checks::CHECKS),
            "disagree" => faults::disagree(group),
            "first-circle" => faults::first_circle(group),
            "circle" => faults::circle(group),
            "failed" => faults::failed(group),
            "crowd" => faults::crowd(group),
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

fn pass(group: &Group, checks: &[(&str, Check)]) -> Result<()> {
    for (name, check) in checks {
        check(group).map_err(|error| Error::other(format!("{name}: {error}")))?;
    }
    Ok(())
}
