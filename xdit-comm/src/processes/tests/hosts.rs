//! Ranks of several hosts.

use super::support::{place, sockets};
use crate::{
    Error, Result,
    processes::{ProcessOptions, RankPlace, world::join_on},
};
use std::{net::TcpListener, thread};

#[test]
fn ranks_of_a_host_are_neighbours_and_keep_their_numbers_in_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let rendezvous = listener.local_addr().expect("it has one").to_string();
    let mut listener = Some(listener);
    let ranks: Vec<_> = (0..4)
        .map(|rank| {
            let listener = listener.take();
            let place = RankPlace {
                host: ["one", "two"][rank % 2].to_owned(),
                ..place(rank, 4, &rendezvous)
            };
            thread::spawn(move || -> Result<_> {
                let world = join_on(listener, &place, ProcessOptions::default(), sockets)?;
                let group = world.group_by_host()?;
                let numbers = group.control().all_gather(&[rank as u8])?;
                if rank == 2 {
                    world.fail("the test says so");
                    return Ok((group.rank(), numbers.concat(), None));
                }
                let error = group.barrier().expect_err("rank 2 has failed");
                Ok((group.rank(), numbers.concat(), Some(error)))
            })
        })
        .collect();
    for (rank, thread) in ranks.into_iter().enumerate() {
        let (own, numbers, error) = thread.join().expect("no panic").expect("a group");
        assert_eq!(numbers, [0, 2, 1, 3]);
        assert_eq!(usize::from(numbers[own]), rank);
        if let Some(error) = error {
            assert!(matches!(error, Error::PeerLost { rank: 2, .. }), "{error}");
            assert!(error.to_string().contains("rank 2 (one)"), "{error}");
        }
    }
}
