//! The order of ranks in which those of one host are neighbours.

use super::wire::Peer;

/// Returns the ranks, those of one host one after another: hosts in the order of their lowest rank, the ranks of a host by number.
pub(super) fn by_host(peers: &[Peer]) -> Vec<usize> {
    let first = |rank: &usize| {
        let host = &peers[*rank].host;
        peers.iter().position(|peer| peer.host == *host)
    };
    let mut ranks: Vec<usize> = (0..peers.len()).collect();
    ranks.sort_by_key(|rank| (first(rank), *rank));
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(hosts: &[&str]) -> Vec<usize> {
        let peer = |(pid, host): (usize, &&str)| Peer {
            host: (*host).to_owned(),
            pid: pid as u32,
        };
        by_host(&hosts.iter().enumerate().map(peer).collect::<Vec<_>>())
    }

    #[test]
    fn ranks_of_one_host_follow_each_other() {
        assert_eq!(of(&[]), [0_usize; 0]);
        assert_eq!(of(&["a", "b", "a", "b"]), [0, 2, 1, 3]);
        assert_eq!(of(&["b", "a", "a", "c", "b"]), [0, 4, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn rank_0_stays_first_and_hosts_stay_together(hosts in prop::collection::vec("[a-d]", 1..20)) {
            let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let order = of(&hosts);
            prop_assert_eq!(order[0], 0);
            let mut met: Vec<&str> = order.iter().map(|rank| hosts[*rank]).collect();
            met.dedup();
            let mut once = met.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(met.len(), once.len(), "each host is met once");
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..hosts.len()));
            for pair in order.windows(2) {
                prop_assert!(hosts[pair[0]] != hosts[pair[1]] || pair[0] < pair[1]);
            }
            // Where they already are neighbours, nothing moves.
            let again: Vec<&str> = order.iter().map(|rank| hosts[*rank]).collect();
            prop_assert!(of(&again).into_iter().eq(0..hosts.len()));
        }
    }
}
