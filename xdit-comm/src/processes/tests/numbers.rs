//! Ranks that go on without a lost one: errors name them as before.

use super::support::{place, sockets};
use crate::{
    Error,
    processes::{ProcessOptions, RankPlace, world::join_on},
};
use std::net::TcpListener;

#[test]
fn a_lost_rank_has_the_number_that_its_user_knows() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let rendezvous = listener.local_addr().expect("it has one").to_string();
    let start = |rank: usize, listener: Option<TcpListener>| {
        let place = RankPlace {
            numbers: vec![1, 4, 7],
            ..place(rank, 3, &rendezvous)
        };
        std::thread::spawn(move || {
            let world = join_on(listener, &place, ProcessOptions::default(), sockets)?;
            match rank {
                2 => world.fail("out of luck"),
                _ => drop(world.group().control().all_gather(&[])?),
            }
            Ok::<(), Error>(())
        })
    };
    let mut listener = Some(listener);
    let ranks: Vec<_> = (0..3).map(|rank| start(rank, listener.take())).collect();
    let ended: Vec<_> = ranks
        .into_iter()
        .map(|rank| rank.join().expect("no panic"))
        .collect();
    assert!(ended[2].is_ok());
    for (own, ended) in [1, 4].into_iter().zip(ended) {
        let error = ended.expect_err("rank 7 is lost");
        let Error::PeerLost { rank, lost, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((*rank, *lost), (own, 7));
        assert!(
            error
                .to_string()
                .contains("rank 7 (node2) is lost: out of luck"),
            "{error}"
        );
    }
}
