//! Ranks that are processes: which launcher has started this one, how the processes come together, and how they end.
//!
//! `place` looks for the launcher, `rendezvous` says where the processes meet, `world` brings them together, `prepare` opens the
//! device of each and makes the transport that `transport` chooses, and `order` gives each its rank of the mesh. Rank 0 alone prints
//! and writes files (`report::voice`).

mod agreement;
mod facts;
mod identity;
mod job;
mod kind;
pub(crate) mod lost;
mod order;
mod own_mpi;
pub(crate) mod own_nccl;
mod place;
mod prepare;
mod rendezvous;
mod slurm;
mod transport;
mod variables;
mod world;

pub(crate) use facts::HostShare;
pub(crate) use job::{ProcessJob, be_courteous, be_silent_at_first};
pub(crate) use place::JobPlace;
pub(crate) use rendezvous::Rendezvous;
pub(crate) use world::{RankWorld, WorldRequest};
