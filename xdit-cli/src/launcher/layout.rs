//! Which ranks there are, and where.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use xdit_models::quote;

use crate::report::failure::Failure;

/// The most ranks that the control plane brings together.
const MOST: usize = 4096;

/// A job: the ranks, and what all of them do.
#[derive(Debug)]
pub(crate) struct LaunchJob {
    /// The hosts in rank order, each with so many ranks. `None` is this host, without ssh.
    pub hosts: Vec<Option<String>>,
    /// The ranks of each host.
    pub per_host: usize,
    /// The words of the command, such as `generate`, without the program.
    pub words: Vec<OsString>,
    /// The port of the rendezvous, if a flag names it.
    pub port: Option<u16>,
    /// The command that runs another on a host: a program and its arguments.
    pub ssh: Vec<String>,
    /// The program that every process runs.
    pub program: PathBuf,
    /// How long processes may take until they know that one is lost, if the others go on without it.
    pub patience: Option<Duration>,
}

/// How a job has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub exit_code: u8,
    /// A line that no process could say: who was killed.
    pub line: Option<String>,
    /// Whether the rank that answers the user ended without an answer.
    pub is_silent: bool,
    /// Lines about ranks without which the others have finished.
    pub lost: Vec<String>,
}

/// A process of a job.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaunchSeat {
    pub rank: usize,
    pub local_rank: usize,
    /// Its host; `None` is this one.
    pub host: Option<String>,
}

impl LaunchSeat {
    /// The process as messages name it.
    pub(crate) fn name(&self) -> String {
        match &self.host {
            Some(host) => format!("rank {} (host {})", self.rank, quote::shorten(host)),
            None => format!("rank {}", self.rank),
        }
    }

    /// Returns the address of its host, as other hosts know it.
    pub(crate) fn address(&self) -> &str {
        address(self.host.as_deref())
    }
}

/// The address of a host: of this one where only its own processes look for it.
fn address(host: Option<&str>) -> &str {
    host.map_or("127.0.0.1", host_of)
}

impl LaunchJob {
    /// Returns the number of ranks.
    pub(crate) fn world_size(&self) -> usize {
        self.hosts.len() * self.per_host
    }

    /// Returns all processes, in rank order. Those of one host follow each other.
    pub(crate) fn seats(&self) -> Vec<LaunchSeat> {
        let of_host = |(n, host): (usize, &Option<String>)| {
            let (first, host) = (n * self.per_host, host.clone());
            (0..self.per_host).map(move |local_rank| LaunchSeat {
                rank: first + local_rank,
                local_rank,
                host: host.clone(),
            })
        };
        self.hosts.iter().enumerate().flat_map(of_host).collect()
    }

    /// Returns the address of the host of rank 0, as other hosts know it.
    pub(crate) fn address(&self) -> &str {
        address(self.hosts.first().and_then(Option::as_deref))
    }
}

/// Returns the hosts of `--hosts`: this one if the flag is not given.
///
/// # Errors
/// [`Failure::Usage`] for a name that is none, or occurs twice.
pub(crate) fn hosts(names: &[String]) -> Result<Vec<Option<String>>, Failure> {
    if names.is_empty() {
        return Ok(vec![None]);
    }
    for (n, name) in names.iter().enumerate() {
        let is_name = |c: char| !c.is_whitespace() && !c.is_control();
        // ssh would take what begins with a dash for a flag.
        if name.is_empty() || name.starts_with('-') || !name.chars().all(is_name) {
            return Err(Failure::usage(format!(
                "--hosts {}: expected names of hosts, separated by commas: a,b or user@a,user@b",
                quote::shorten(&names.join(","))
            )));
        }
        let host = host_of(name);
        // The ranks meet at the first host, and where its ranks are lost, at another one.
        if names.len() > 1 && is_loopback(host) {
            return Err(Failure::usage(format!(
                "--hosts {}: the other hosts cannot reach this one at {host}; give each host the name by which the others know it",
                quote::shorten(&names.join(","))
            )));
        }
        if names[..n].iter().any(|other| host_of(other) == host) {
            return Err(Failure::usage(format!(
                "--hosts {}: {} occurs twice; --nproc says how many processes each host has",
                quote::shorten(&names.join(",")),
                quote::shorten(name)
            )));
        }
    }
    Ok(names.iter().cloned().map(Some).collect())
}

/// The host in `user@host`.
fn host_of(name: &str) -> &str {
    name.rsplit_once('@').map_or(name, |(_, host)| host)
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Returns the number of ranks of each of `hosts` hosts: that of `--nproc`, or else what the degrees of the command ask for.
///
/// # Errors
/// [`Failure::Usage`] if neither says it, or there are too many.
pub(crate) fn per_host(
    nproc: Option<usize>,
    degrees: Option<usize>,
    hosts: usize,
) -> Result<usize, Failure> {
    let per_host = match (nproc, degrees) {
        (Some(0), _) => return Err(Failure::usage("--nproc 0: must be at least 1")),
        (Some(nproc), _) => nproc,
        (None, Some(ranks)) if ranks > 1 && ranks.is_multiple_of(hosts) => ranks / hosts,
        (None, Some(ranks)) if ranks > 1 => {
            return Err(Failure::usage(format!(
                "the command has {ranks} ranks, which {hosts} hosts do not share evenly; --nproc says how many processes each host has"
            )));
        }
        (None, _) => {
            return Err(Failure::usage(
                "the command does not say how many ranks it has; give --nproc N, or degrees after --, such as --ulysses-degree 2",
            ));
        }
    };
    match per_host.checked_mul(hosts) {
        Some(ranks) if ranks <= MOST => Ok(per_host),
        _ => Err(Failure::usage(format!(
            "--nproc {per_host}: at most {MOST} processes are possible"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn ranks_of_a_host_follow_each_other() {
        let job = LaunchJob {
            hosts: hosts(&names(&["me@a", "b"])).unwrap(),
            per_host: 2,
            words: vec![],
            port: None,
            ssh: vec![],
            program: PathBuf::new(),
            patience: None,
        };
        let seats: Vec<_> = job
            .seats()
            .into_iter()
            .map(|seat| (seat.rank, seat.local_rank, seat.name()))
            .collect();
        let seat = |rank, local, name: &str| (rank, local, format!("rank {rank} (host {name})"));
        assert_eq!(
            seats,
            [
                seat(0, 0, "me@a"),
                seat(1, 1, "me@a"),
                seat(2, 0, "b"),
                seat(3, 1, "b")
            ]
        );
        assert_eq!((job.world_size(), job.address()), (4, "a"));
    }

    #[test]
    fn without_hosts_it_is_this_one() {
        assert_eq!(hosts(&[]).unwrap(), [None]);
        for wrong in [
            &["localhost", "b"][..],
            &["a", "127.0.0.1"],
            &["a", "me@a"],
            &["a", "a"],
            &["-oProxyCommand=x"],
            &["a", ""],
            &["a b"],
        ] {
            let failure = hosts(&names(wrong)).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().starts_with("--hosts "), "{failure}");
        }
    }

    #[test]
    fn the_number_of_processes_is_that_of_the_flag_or_of_the_degrees() {
        assert_eq!(per_host(Some(3), Some(4), 1).unwrap(), 3);
        assert_eq!(per_host(None, Some(4), 1).unwrap(), 4);
        assert_eq!(per_host(None, Some(4), 2).unwrap(), 2);
        for (nproc, degrees, hosts) in [
            (None, None, 1),
            (None, Some(1), 1),
            (None, Some(4), 3),
            (Some(0), None, 1),
            (Some(4097), None, 1),
            (Some(usize::MAX), None, 2),
        ] {
            let failure = per_host(nproc, degrees, hosts).unwrap_err();
            assert!(failure.to_string().contains("--nproc"), "{failure}");
        }
    }
}
