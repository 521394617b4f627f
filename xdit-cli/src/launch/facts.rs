//! What the processes of a job tell each other about their hosts before they begin.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::launch::place::JobPlace;

/// What a process says of its host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct HostFacts {
    /// The name of the host.
    pub host: String,
    /// What changes when the host starts anew, and differs between hosts of one name.
    pub boot: String,
    /// The cores on which the process may run.
    pub cores: String,
    /// Its number on this host, if its launcher says.
    pub local_rank: Option<usize>,
}

impl HostFacts {
    /// Those of this process.
    pub(super) fn read(place: &JobPlace) -> Self {
        let line = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().to_owned()
        };
        let status = line("/proc/self/status");
        let cores = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Self {
            host: place.host.clone(),
            boot: line("/proc/sys/kernel/random/boot_id"),
            cores: cores.unwrap_or_default().trim().to_owned(),
            local_rank: place.local_rank,
        }
    }

    fn is_beside(&self, other: &Self) -> bool {
        self.host == other.host && self.boot == other.boot
    }
}

/// Returns the number of the host of each process; `all` is what the processes say, in rank order.
pub(super) fn host_numbers(all: &[HostFacts]) -> Vec<usize> {
    let first = |own: &HostFacts| all.iter().position(|other| other.is_beside(own));
    all.iter().map(|own| first(own).unwrap_or(0)).collect()
}

/// The part of a process in its host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HostShare {
    /// The number of this process among those of its host.
    pub local_rank: usize,
    /// Whether no process of this host has a lower rank.
    pub is_first: bool,
    /// The number of processes of its host.
    pub local_ranks: usize,
    /// The number of processes that share the cores of this one.
    pub on_same_cores: usize,
    /// Whether all processes are on one host.
    pub is_one_host: bool,
}

impl HostShare {
    /// That of process `rank`; `all` is what the processes say, in rank order.
    pub(super) fn of(rank: usize, all: &[HostFacts]) -> Self {
        let own = &all[rank];
        let here = || {
            all.iter()
                .enumerate()
                .filter(|(_, other)| other.is_beside(own))
        };
        let counted = here().take_while(|(other, _)| *other < rank).count();
        Self {
            local_rank: own.local_rank.unwrap_or(counted),
            is_first: counted == 0,
            local_ranks: here().count(),
            on_same_cores: here().filter(|(_, other)| other.cores == own.cores).count(),
            is_one_host: here().count() == all.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(host: &str, boot: &str, cores: &str) -> HostFacts {
        HostFacts {
            host: host.to_owned(),
            boot: boot.to_owned(),
            cores: cores.to_owned(),
            local_rank: None,
        }
    }

    #[test]
    fn processes_share_what_they_can_both_use() {
        let mut all = vec![
            facts("a", "1", "0-7"),
            facts("b", "2", "0-3"),
            facts("a", "1", "0-7"),
            facts("b", "2", "4-7"),
            facts("a", "3", "0-7"),
        ];
        let share = |all: &[HostFacts], rank| {
            let share = HostShare::of(rank, all);
            (share.local_rank, share.local_ranks, share.on_same_cores)
        };
        let shares: Vec<_> = (0..5).map(|rank| share(&all, rank)).collect();
        // mpirun gives each process cores of its own, as on b; another boot is another host.
        assert_eq!(
            shares,
            [(0, 2, 2), (0, 2, 1), (1, 2, 2), (1, 2, 1), (0, 1, 1)]
        );
        assert_eq!(host_numbers(&all), [0, 1, 0, 1, 4]);
        assert!(!HostShare::of(0, &all).is_one_host);
        assert!(HostShare::of(1, &[all[0].clone(), all[2].clone()]).is_one_host);
        all[2].local_rank = Some(5);
        assert_eq!(share(&all, 2), (5, 2, 2));
    }

    #[test]
    fn facts_arrive_as_they_were_sent() {
        let json = serde_json::to_string(&facts("a", "", "0-1")).unwrap();
        let read: HostFacts = serde_json::from_str(&json).unwrap();
        assert_eq!(read, facts("a", "", "0-1"));
    }
}
