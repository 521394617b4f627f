//! What ranks learn when one of them is wrong or gone. Each function runs on all ranks, and returns an error if a rank learns something
//! else than it should.

use std::thread;
use std::time::{Duration, Instant};

use xdit_comm::processes::ProcessWorld;
use xdit_comm::{Error, Group, ReduceOp, Result, Spec, threads};
use xdit_kernels::{DType, Device, Tensor};

use crate::checks::ensure;

/// A rank is told within this time, on a machine that is busy.
const LONG: Duration = Duration::from_secs(20);

fn spec() -> Spec {
    Spec::new([5], DType::F32)
}

/// The error of a call that cannot succeed.
fn error_of<T>(outcome: Result<T>) -> Result<String> {
    match outcome {
        Ok(_) => Err(Error::other("a call has succeeded that cannot")),
        Err(error) => Ok(error.to_string()),
    }
}

/// The error of the operation or, as a queue waits and no thread, of the next one.
fn end(outcome: Result<Tensor>, group: &Group) -> Result<String> {
    let read = outcome.and_then(|tensor| Ok(tensor.to_vec_blocking::<f32>()?));
    match read {
        Ok(_) => error_of(group.barrier()),
        Err(error) => Ok(error.to_string()),
    }
}

/// The text without hosts, which threads do not have.
fn without_hosts(mut text: String, group: &Group) -> String {
    for rank in 0..group.world_size() {
        text = text.replace(
            &format!("rank {rank} (node{rank})"),
            &format!("rank {rank}"),
        );
    }
    text
}

/// Both sides of a disagreement, whoever is named first.
fn sides(text: &str) -> Vec<String> {
    let (_, calls) = text.split_once("disagree: ").unwrap_or_default();
    let sides = calls
        .split(", rank ")
        .map(|side| side.trim_start_matches("rank "));
    let mut sides: Vec<String> = sides.map(str::to_owned).collect();
    sides.sort_unstable();
    sides
}

/// Ranks that disagree get the error that threads get: at the latest, from one of the next calls.
pub(crate) fn disagree(group: &Group) -> Result<()> {
    fn work(group: &Group) -> Result<()> {
        let len = 2 + group.rank();
        let mine = Tensor::from_slice(&vec![1f32; len], [len], &Device::cpu())?;
        group.all_reduce(&mine, ReduceOp::Sum)?;
        let began = Instant::now();
        while began.elapsed() < LONG {
            group.progress()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
    let of_threads = error_of(threads::run(group.world_size(), |group| work(&group)))?;
    let text = without_hosts(error_of(work(group))?, group);
    let same = sides(&text) == sides(&of_threads) && sides(&text).len() == 2;
    ensure(same, || format!("{text}\nthreads: {of_threads}"))
}

/// Ranks that wait for each other are told at once if they have not met before: NCCL connects them first, and they wait for that.
pub(crate) fn first_circle(group: &Group) -> Result<()> {
    let next = (group.rank() + 1) % group.world_size();
    let text = error_of(group.recv(spec(), next))?;
    let told = "deadlock: each waits for the next: ";
    ensure(text.contains(told), || text.clone())
}

/// The GPUs of ranks wait for each other, and the ranks for their GPUs: that ends at the deadline. NCCL itself would wait forever.
pub(crate) fn circle(group: &Group) -> Result<()> {
    let next = (group.rank() + 1) % group.world_size();
    group.barrier()?;
    let began = Instant::now();
    let text = end(group.recv(spec(), next), group)?;
    ensure(began.elapsed() < LONG, || "too late".to_owned())?;
    let told = "is lost: no progress for 1.";
    ensure(text.contains(told), || text.clone())
}

/// Rank 0 fails while the others wait for it on their GPUs.
pub(crate) fn failed(group: &Group) -> Result<()> {
    group.barrier()?;
    if group.rank() == 0 {
        thread::sleep(Duration::from_millis(200));
        group.control().fail("the test says so");
        return Ok(());
    }
    let began = Instant::now();
    let text = end(group.recv(spec(), 0), group)?;
    ensure(began.elapsed() < LONG, || "too late".to_owned())?;
    let told = "rank 0 (node0) is lost: the test says so";
    ensure(text.contains(told), || text.clone())
}

/// Rank 0 fails while the others have started more batches than a stream has room for.
pub(crate) fn crowd(group: &Group) -> Result<()> {
    group.barrier()?;
    if group.rank() == 0 {
        thread::sleep(Duration::from_millis(300));
        group.control().fail("the test says so");
        return Ok(());
    }
    let began = Instant::now();
    let mut failed = None;
    for _ in 0..2000 {
        if let Err(error) = group.start_recv(spec(), 0).map(drop) {
            failed = Some(error.to_string());
            break;
        }
    }
    let text = match failed {
        Some(text) => text,
        None => end(group.recv(spec(), 0), group)?,
    };
    ensure(began.elapsed() < LONG, || "too late".to_owned())?;
    let told = "rank 0 (node0) is lost: the test says so";
    ensure(text.contains(told), || text.clone())
}

/// NCCL fails on one rank by itself, while the ranks wait on their GPUs: the variable of the double says where.
pub(crate) fn broken(group: &Group) -> Result<()> {
    let began = Instant::now();
    loop {
        let mine = Tensor::from_slice(&[1f32; 5], [5], &Device::cpu())?;
        let sum = group.all_reduce(&mine, ReduceOp::Sum);
        let Err(error) = sum else {
            thread::sleep(Duration::from_millis(5));
            ensure(began.elapsed() < LONG, || "no failure".to_owned())?;
            continue;
        };
        let text = error.to_string();
        let told = "remote process exited or there was a network error";
        return ensure(text.contains(told) && text.contains("rank 1"), || {
            text.clone()
        });
    }
}

/// A rank sends and leaves. What it has sent arrives.
pub(crate) fn leaves(world: ProcessWorld) -> Result<()> {
    let group = world.group();
    let last = group.world_size() - 1;
    let mine = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0], [5], &Device::cpu())?;
    if group.rank() == last {
        let sends = (0..last).map(|to| group.start_send(&mine, to));
        sends.collect::<Result<Vec<_>>>()?;
        drop(world);
        return Ok(());
    }
    thread::sleep(Duration::from_millis(100));
    let got = group.recv(spec(), last)?.to_vec_blocking::<f32>()?;
    ensure(got == [1.0, 2.0, 3.0, 4.0, 5.0], || {
        format!("wrong result: {got:?}")
    })
}
