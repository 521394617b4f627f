//! The world of the processes that mpirun has started.

use std::{net::TcpListener, time::Duration};
use xdit_comm::{
    Call, Error, Op, Result, Spec,
    processes::{self, JobSecret, ProcessOptions, ProcessWorld, RankPlace, mpi::Mpi},
};
use xdit_kernels::{DType, Device, Tensor};

/// A free port of rank 0 at its address `ip`. MPI tells it to the others.
fn rendezvous(mpi: &Mpi, ip: &str) -> Result<String> {
    let (rank, size) = (mpi.rank(), mpi.world_size());
    let transport = mpi.transport(rank, size, &Device::cpu())?;
    let mut gives = Vec::new();
    if rank == 0 {
        let listener = TcpListener::bind((ip, 0)).map_err(Error::other)?;
        let address = listener.local_addr().map_err(Error::other)?;
        let port = u32::from(address.port());
        gives.push(Tensor::from_slice(&[port], [1], &Device::cpu())?);
    }
    let mut transfer = transport.start(vec![Call {
        op: Op::Broadcast { root: 0 },
        gives,
        expects: vec![Spec::new([1], DType::U32)],
    }])?;
    loop {
        if let Some(tensors) = transfer.poll()? {
            let port = tensors[0].to_vec_blocking::<u32>()?;
            return Ok(format!("{ip}:{}", port[0]));
        }
        transfer.rest(Duration::from_millis(1));
    }
}

pub(crate) fn join(mpi: &Mpi, ip: &str) -> Result<ProcessWorld> {
    let (rank, world_size) = (mpi.rank(), mpi.world_size());
    let place = RankPlace {
        rank,
        world_size,
        host: format!("node{rank}"),
        rendezvous: rendezvous(mpi, ip)?,
        secret: JobSecret::default(),
        restart: 0,
        build: String::new(),
        plan: String::new(),
    };
    processes::join(&place, ProcessOptions::default(), |peers| {
        mpi.transport(peers.rank(), peers.all().len(), &Device::cpu())
    })
}
