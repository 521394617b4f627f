//! The world of the processes that mpirun has started.

use std::net::TcpListener;
use xdit_comm::{
    Error, Result,
    processes::{
        self, JobSecret, Peers, ProcessOptions, ProcessWorld, RankPlace, Transport, mpi::Mpi,
    },
};

/// A free port of rank 0. MPI tells it to the others.
fn rendezvous(mpi: &Mpi) -> Result<String> {
    let own = match mpi.rank() {
        0 => {
            let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::other)?;
            let address = listener.local_addr().map_err(Error::other)?;
            address.to_string()
        }
        _ => String::new(),
    };
    let told = mpi.bytes_of_rank_0(own.as_bytes())?;
    String::from_utf8(told).map_err(Error::other)
}

/// Joins the world of all processes. `transport` makes the transport of this one.
pub(crate) fn join(
    mpi: &Mpi,
    transport: impl FnOnce(&Peers) -> Result<Box<dyn Transport>>,
) -> Result<ProcessWorld> {
    let (rank, world_size) = (mpi.rank(), mpi.world_size());
    let place = RankPlace {
        rank,
        world_size,
        host: format!("node{rank}"),
        rendezvous: rendezvous(mpi)?,
        secret: JobSecret::default(),
        restart: 0,
        build: String::new(),
        plan: String::new(),
        numbers: Vec::new(),
    };
    processes::join(&place, ProcessOptions::default(), transport)
}
