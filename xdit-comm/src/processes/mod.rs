//! Ranks that are processes, on one host or on many.
//!
//! A world is a control plane and a transport. The *control plane* is of this module: TCP connections from every rank to rank 0. It
//! brings the ranks together ([`join`]), carries the exchanges of [`Group::control`](crate::Group::control), compares the calls of
//! the ranks, and finds out who failed. No tensor travels on it. The *transport* moves tensors and nothing else: it implements
//! [`Transport`]. [`local`] is one, between processes of one host. Both together are a [`Backend`](crate::Backend) that passes
//! [`conformance`](crate::conformance).
//!
//! **Who is let in.** A process says who it is before anything else: the version of the protocol, the job's secret, its rank, the
//! number of ranks, the restart count, and texts for the program and the plan ([`RankPlace`]). Rank 0 refuses what differs from its
//! own and names both sides. If the process is of the same job, no rank begins, and all get the same error. Strangers and processes of
//! an earlier attempt are refused alone, and the ranks do not notice. Nothing is encrypted: use a network that you trust.
//!
//! **Who is lost.** Each process shows every [`beat`](ProcessOptions::beat) that it is alive, from a thread of its own: a rank that
//! computes for minutes is alive. These are lost, and all others get [`Error::PeerLost`](crate::Error::PeerLost) with the number and
//! the host of the rank:
//!
//! | rank | found | [`Loss`](crate::Loss) |
//! |---|---|---|
//! | its process has ended | at once, by its closed connection | `Ended` |
//! | its process is stopped, or its host is cut off | after [`silence`](ProcessOptions::silence) | `Silent` |
//! | it finishes nothing, and does not wait for others | after [`deadline`](ProcessOptions::deadline) | `NoProgress` |
//! | it reports an error, panics, or leaves while others wait for it | at once | `Failed` |
//!
//! The same holds for rank 0, whose connections all others have. Time in which a process does not run is not counted against the
//! others. An error of a transport is only a suspicion at first: a transport often fails because another rank has died. Before it
//! counts, every rank sends what it has not yet sent, and whoever is missing is the cause.
//!
//! **Calls that differ.** Each rank tells rank 0 what it starts, without waiting: at once where it then waits, and after 50 ms at the
//! latest. Rank 0 finds calls that do not fit each other and ranks that wait for each other in a circle, as
//! [`threads`](crate::threads) does, with the same texts. It costs a message for several calls, and none on the way of the tensors.
//! Rank 0 and the inboxes keep a little for every group that was ever split off, until the world ends: split once and keep the
//! groups.
//!
//! **Leaving.** A rank leaves when its [`ProcessWorld`] is dropped. Its goodbye comes before its transport ends. The process of rank
//! 0 then waits for the others, for [`grace`](ProcessOptions::grace) at most. The threads of the control plane have ended when the drop
//! returns. A transport may keep some until the other ranks have left too.

mod absence;
mod bytes;
mod calls;
mod hello;
mod hub;
mod link;
#[cfg(unix)]
pub mod local;
mod matching;
mod member;
#[cfg(feature = "mpi")]
#[cfg_attr(docsrs, doc(cfg(feature = "mpi")))]
pub mod mpi;
#[cfg(all(unix, feature = "nccl"))]
#[cfg_attr(docsrs, doc(cfg(feature = "nccl")))]
pub mod nccl;
mod options;
mod outbox;
#[cfg(unix)]
mod parts;
mod plane;
mod pulse;
mod switch;
#[cfg(all(test, unix))]
mod tests;
mod transport;
mod wire;
mod world;

pub use absence::cannot_join;
pub use hello::{JobSecret, RankPlace};
pub use options::ProcessOptions;
pub use transport::{Transfer, Transport};
pub use wire::Peer;
pub use world::{Peers, ProcessWorld, TransportAlarm, join};
