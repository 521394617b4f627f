//! Where the processes of a job meet: a host and a port that all of them know before they can speak.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::launch::kind::{LauncherKind, OwnHost};
use crate::launch::slurm;
use crate::launch::variables::Variables;
use crate::report::failure::Failure;

/// The port of PyTorch, if nothing says another.
const TORCH_PORT: u16 = 29500;
/// The first of the ports that are chosen by the number of a job, and how many there are.
const PORTS: (u16, u64) = (20_000, 20_000);
/// The steps of a job take ports that are this far apart.
const STEP: u64 = 97;
/// This host, for the processes of this host.
const THIS_HOST: &str = "127.0.0.1";

/// Where the processes of a job meet.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Rendezvous {
    /// The host of rank 0. `None` if neither a variable nor the launcher says it: then only MPI can tell it.
    pub host: Option<String>,
    /// The port at which rank 0 listens.
    pub port: u16,
    /// Whether nobody has asked for this port, so that rank 0 may choose another one, if it can tell it.
    pub is_free_choice: bool,
    /// Why it is this port.
    pub why: String,
}

impl fmt::Display for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("the host of rank 0");
        match host.contains(':') && !host.starts_with('[') {
            true => write!(f, "[{host}]:{}", self.port),
            false => write!(f, "{host}:{}", self.port),
        }
    }
}

impl Rendezvous {
    /// By the rules of `launcher`. `is_one_host`: all processes are on this host. `flag` is `--rendezvous-port`.
    pub(super) fn of(
        read: Variables<'_>,
        launcher: LauncherKind,
        is_one_host: bool,
        flag: Option<u16>,
        host: &OwnHost,
    ) -> Result<Self, Failure> {
        let (port, why, is_free_choice) = match chosen_port(read, launcher, flag)? {
            Some((port, why)) => (port, why, false),
            None => {
                let (port, why) = port_by_rule(read, launcher, host)?;
                (port, why, true)
            }
        };
        let host = match is_one_host {
            true => Some(THIS_HOST.to_owned()),
            false => first_host(read, launcher)?,
        };
        let is_needed = !matches!(launcher, LauncherKind::OpenMpi | LauncherKind::Pmi);
        if host.is_none() && is_needed {
            return Err(Failure::usage(format!(
                "{launcher}: MASTER_ADDR is not set: set it to the host of rank 0 for every rank (or LOCAL_WORLD_SIZE to \
                 WORLD_SIZE, if all ranks are on one host)"
            )));
        }
        Ok(Self {
            host,
            port,
            is_free_choice,
            why,
        })
    }
}

fn first_host(read: Variables<'_>, launcher: LauncherKind) -> Result<Option<String>, Failure> {
    if let Some(host) = read.text("MASTER_ADDR") {
        return Ok(Some(host.to_owned()));
    }
    if let Some(host) = read.text("LWS_LEADER_ADDRESS") {
        return Ok(Some(host.to_owned()));
    }
    if !matches!(launcher, LauncherKind::Slurm | LauncherKind::Pmi) {
        return Ok(None);
    }
    let lists = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"];
    let list = lists
        .into_iter()
        .find_map(|name| Some((name, read.text(name)?)));
    match list {
        None => Ok(None),
        Some((name, list)) => slurm::first_node(list).map(Some).ok_or_else(|| {
            let found = xdit_models::quote::shorten(list);
            Failure::usage(format!(
                "{name}={found}: expected a list of nodes, such as node[01-04]"
            ))
        }),
    }
}

/// The port that a flag or a variable says, and which.
fn chosen_port(
    read: Variables<'_>,
    launcher: LauncherKind,
    flag: Option<u16>,
) -> Result<Option<(u16, String)>, Failure> {
    if let Some(port) = flag {
        return Ok(Some((port, "--rendezvous-port".to_owned())));
    }
    if let Some(port) = read.port("XDIT_RENDEZVOUS_PORT")? {
        return Ok(Some((port, "XDIT_RENDEZVOUS_PORT".to_owned())));
    }
    let Some(port) = read.port("MASTER_PORT")? else {
        return Ok(None);
    };
    // With this setting the agent of torchrun listens there, and no worker can.
    let is_taken = launcher == LauncherKind::Torchrun
        && read.text("TORCHELASTIC_USE_AGENT_STORE") == Some("True");
    if !is_taken {
        return Ok(Some((port, "MASTER_PORT".to_owned())));
    }
    let next = port.checked_add(1).ok_or_else(|| {
        Failure::usage(format!(
            "MASTER_PORT={port} belongs to torchrun, and there is no port after it: choose one with --rendezvous-port"
        ))
    })?;
    let why = format!("the one after MASTER_PORT {port}, at which torchrun itself listens");
    Ok(Some((next, why)))
}

/// A port that all processes of the job find by themselves.
fn port_by_rule(
    read: Variables<'_>,
    launcher: LauncherKind,
    host: &OwnHost,
) -> Result<(u16, String), Failure> {
    let by_number = |number: u64, of: &str| {
        let (first, count) = PORTS;
        let port = first + (number % count) as u16;
        (port, format!("by the number of {of}"))
    };
    let job = read.number("SLURM_JOB_ID")?;
    let step = read.number("SLURM_STEP_ID")?.unwrap_or_default();
    Ok(match (launcher, job, read.text("PMIX_NAMESPACE")) {
        (LauncherKind::Slurm | LauncherKind::Pmi, Some(job), _) => by_number(
            job.wrapping_add(step.wrapping_mul(STEP)),
            "the job and its step",
        ),
        (LauncherKind::OpenMpi, _, Some(job)) => by_number(hash(job), "the job of mpirun"),
        // All processes of a host have one parent.
        (LauncherKind::OpenMpi | LauncherKind::Pmi, _, _) => {
            by_number(host.parent.into(), "the process of mpirun")
        }
        _ => (TORCH_PORT, "the usual one without MASTER_PORT".to_owned()),
    })
}

/// The same number for the same text in every process (FNV-1a).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
