//! The word of a process that has failed before it could join.

use super::{
    hello::{Hello, RankPlace},
    link::connect,
    wire::Frame,
};
use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

/// Tells rank 0 that this process cannot [`join`](super::join), and why, so that the other ranks do not wait for it: their
/// [`join`](super::join) fails with this reason ([`Error::NotBegun`](crate::Error::NotBegun)). Waits for rank 0 within `limit`, and
/// returns whether it has heard it. [`RankPlace::build`] and [`RankPlace::plan`] are not compared.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use xdit_comm::processes::{JobSecret, RankPlace, cannot_join};
/// let place = RankPlace {
///     rank: 1,
///     world_size: 2,
///     host: "node1".to_owned(),
///     rendezvous: "127.0.0.1:1".to_owned(),
///     secret: JobSecret::default(),
///     restart: 0,
///     build: String::new(),
///     plan: String::new(),
///     numbers: Vec::new(),
/// };
/// // Nobody listens there.
/// assert!(!cannot_join(&place, "its disk is full", Duration::from_millis(10)));
/// ```
pub fn cannot_join(place: &RankPlace, reason: &str, limit: Duration) -> bool {
    let began = Instant::now();
    let Ok(hello) = Hello::of(place) else {
        return false;
    };
    let reason = reason.to_owned();
    let word = Frame::CannotCome { hello, reason }.encode();
    let Ok(mut stream) = connect(place.rendezvous.as_str(), limit) else {
        return false;
    };
    let left = limit.saturating_sub(began.elapsed());
    let left = left.max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).ok();
    let is_sent = stream.write_all(&word).is_ok() && stream.shutdown(Shutdown::Write).is_ok();
    // Rank 0 closes the connection when it has read this.
    is_sent && matches!(stream.read(&mut [0]), Ok(0))
}
