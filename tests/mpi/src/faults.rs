//! What ranks learn when one of them is wrong or gone.

use crate::{checks::ensure, world};
use std::{
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};
use xdit_comm::{Error, Group, Result, Spec, processes::mpi::Mpi, threads};
use xdit_kernels::{DType, Device, Tensor, TensorMut};

/// Ranks that disagree get the error that threads get.
pub(crate) fn disagree(group: &Group) -> Result<()> {
    fn work(group: &Group, expected: usize) -> Result<()> {
        let tensor = Tensor::from_slice(&[1_f32, 2.], [2], &Device::cpu())?;
        match group.rank() {
            0 => group.send(&tensor, 1)?,
            1 => drop(group.recv(Spec::new([expected], DType::F32), 0)?),
            _ => {}
        }
        group.barrier()
    }
    let threads = threads::run(group.world_size(), |group| work(&group, 3));
    let threads = threads.expect_err("the ranks disagree").to_string();
    let error = work(group, 3).expect_err("the ranks disagree").to_string();
    let text = "rank 1 calls recv from 0, gives [], expects [[3] f32], rank 0 calls send to 1, gives [[2] f32]";
    ensure(threads.contains(text) && error.contains(text), || {
        format!("{error}\nthreads: {threads}")
    })
}

/// Everybody waits for a message that is not sent, and learns why.
fn wait_in_vain(group: &Group, reason: &str, lost: usize) -> Result<()> {
    let pending = group.start_recv(Spec::new([5], DType::F32), lost)?;
    let began = Instant::now();
    let error = pending.wait().expect_err("nobody sends").to_string();
    let took = began.elapsed();
    let names = format!("rank {lost} (node{lost}) is lost: ");
    ensure(
        took < Duration::from_secs(5) && error.contains(&names) && error.contains(reason),
        || format!("after {took:.1?}: {error}"),
    )?;
    // Nothing waits any more.
    let later = group.barrier().expect_err("a rank is lost").to_string();
    ensure(later.contains(&names), || later)
}

pub(crate) fn failed(group: &Group) -> Result<()> {
    group.barrier()?;
    if group.rank() == 0 {
        // The others wait by then.
        thread::sleep(Duration::from_millis(200));
        group.control().fail("the test says so");
        return Ok(());
    }
    wait_in_vain(group, "the test says so", 0)
}

/// Launchers end all processes when the first ends without MPI_Finalize: the others have yet to say what they have learned.
pub(crate) fn linger() {
    thread::sleep(Duration::from_secs(1));
}

/// After a while, the last rank is gone.
fn kill_last(rank: usize, world_size: usize) {
    if rank + 1 == world_size {
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(200));
            let pid = process::id().to_string();
            let status = Command::new("kill").args(["-9", &pid]).status();
            eprintln!("it lives after a kill: {status:?}");
        });
    }
}

pub(crate) fn killed(group: &Group) -> Result<()> {
    group.barrier()?;
    kill_last(group.rank(), group.world_size());
    let last = group.world_size() - 1;
    if group.rank() == last {
        thread::sleep(Duration::from_secs(9));
    }
    wait_in_vain(group, "its process has ended", last)
}

/// In the midst of large exchanges.
pub(crate) fn killed_busy(group: &Group) -> Result<()> {
    const LEN: usize = 1 << 20;
    let (n, last) = (group.world_size(), group.world_size() - 1);
    group.barrier()?;
    kill_last(group.rank(), group.world_size());
    let tensor = TensorMut::zeros([LEN], DType::F32, &Device::cpu())?.freeze();
    let began = Instant::now();
    let error = loop {
        let gives = vec![tensor.clone(); n];
        match group.all_to_all(gives, &vec![Spec::of(&tensor); n]) {
            Ok(_) if began.elapsed() < Duration::from_secs(6) => {}
            Ok(_) => return Err(Error::other("a rank that is dead takes part")),
            Err(error) => break error.to_string(),
        }
    };
    let took = began.elapsed();
    let names = format!("rank {last} (node{last}) is lost: its process has ended");
    ensure(
        took < Duration::from_secs(5) && error.contains(&names),
        || format!("after {took:.1?}: {error}"),
    )
}

/// While the others make their transport, which needs all.
pub(crate) fn killed_early(mpi: &Mpi) -> Result<()> {
    let (rank, last) = (mpi.rank(), mpi.world_size() - 1);
    let began = Instant::now();
    let joined = world::join(mpi, |peers| {
        kill_last(rank, peers.all().len());
        if rank == last {
            thread::sleep(Duration::from_secs(9));
        }
        mpi.transport(peers, &Device::cpu())
    });
    let (took, error) = match joined {
        Ok(_) => return Err(Error::other("a world without a rank begins")),
        Err(error) => (began.elapsed(), error.to_string()),
    };
    let names = format!("rank {last} (node{last}) is lost: its process has ended");
    ensure(
        took < Duration::from_secs(5) && error.contains(&names),
        || format!("after {took:.1?}: {error}"),
    )?;
    println!("killed-early: rank {rank} after {took:.1?}");
    linger();
    Ok(())
}
