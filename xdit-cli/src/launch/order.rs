//! Which place on the mesh each process has.

use std::collections::BTreeMap;

use xdit_models::{Degrees, axes};

/// Returns the rank of the mesh of each process, by the process's number. `hosts` are the numbers of their hosts, and `end` is the
/// stage where the model ends.
///
/// The processes of a host are neighbours. Process 0 alone prints and writes, so it is the first rank of the stage where the model
/// ends, which gathers the images: the coordinates on the axis of stages begin there.
pub(super) fn mesh_ranks(degrees: Degrees, hosts: &[usize], end: usize) -> Vec<usize> {
    let coordinates = |rank| axes::ALL.map(|axis| degrees.coord(rank, axis));
    let all: BTreeMap<_, _> = (0..hosts.len())
        .map(|rank| (coordinates(rank), rank))
        .collect();
    let mut by_host: Vec<usize> = (0..hosts.len()).collect();
    // Stable: on a host, in the order of their numbers.
    by_host.sort_by_key(|process| hosts.iter().position(|host| host == &hosts[*process]));
    let mut ranks = vec![0; hosts.len()];
    for (place, process) in by_host.into_iter().enumerate() {
        let mut at = coordinates(place);
        for (axis, coordinate) in axes::ALL.iter().zip(&mut at) {
            if *axis == axes::PIPE {
                *coordinate = (*coordinate + end) % degrees.pipe.max(1);
            }
        }
        // Every tuple of coordinates is a rank, because the degrees multiply to the number of processes.
        ranks[process] = all.get(&at).copied().unwrap_or(place);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degrees(data: usize, pipe: usize, ulysses: usize) -> Degrees {
        Degrees {
            data,
            pipe,
            ulysses,
            ..Degrees::default()
        }
    }

    fn hosts(names: &str) -> Vec<usize> {
        names.bytes().map(usize::from).collect()
    }

    #[test]
    fn without_stages_and_with_whole_hosts_nothing_moves() {
        assert_eq!(
            mesh_ranks(degrees(2, 1, 2), &hosts("aabb"), 0),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn process_0_is_on_the_stage_where_the_model_ends() {
        assert_eq!(
            mesh_ranks(degrees(1, 2, 2), &hosts("aaaa"), 1),
            [2, 3, 0, 1]
        );
        // In each replica; neighbours stay neighbours.
        let ranks = mesh_ranks(degrees(2, 2, 2), &hosts("aaaabbbb"), 1);
        assert_eq!(ranks, [2, 3, 0, 1, 6, 7, 4, 5]);
        assert_eq!(mesh_ranks(degrees(1, 3, 1), &hosts("aaa"), 2), [2, 0, 1]);
        assert_eq!(
            mesh_ranks(degrees(1, 2, 2), &hosts("aaaa"), 0),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn processes_of_a_host_are_neighbours() {
        // Launchers may deal ranks out to hosts in turns.
        assert_eq!(
            mesh_ranks(degrees(1, 1, 4), &hosts("abab"), 0),
            [0, 2, 1, 3]
        );
        let ranks = mesh_ranks(degrees(2, 1, 2), &hosts("baab"), 0);
        assert_eq!(ranks, [0, 2, 3, 1]);
    }
}
