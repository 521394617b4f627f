//! Tensors between processes that have an NVIDIA GPU each, moved by NCCL.
//!
//! NCCL is opened at run time ([`NcclLibrary`]). Communicators do not block: every call returns at once, and what it has begun is
//! polled. A batch is one group of `ncclSend` and `ncclRecv`, on a queue of the transport's own beside that of the rank. Events order
//! the two: waiting for a batch makes the rank's queue wait, and no thread. Only a reduction is computed by the host, when its parts
//! have arrived: it adds in rank order, as [`threads`](crate::threads) does, and gives the same bytes.
//!
//! **Order.** The batches of a rank run one after another, over all groups: a receive and the sends that it depends on are one batch
//! ([`Transport::receives_ahead`] is false). NCCL has no tags. Between two ranks of a group, collectives and messages therefore must
//! come in the same order on both, if they are in different batches; within a batch, collectives come first. A split counts as a
//! collective.
//!
//! **Tensors** of the processor are copied to the GPU. What arrives is of the rank's GPU.
//!
//! **Failures.** A thread of the transport polls for errors that come later. After a failure of any rank it aborts all communicators,
//! which ends what their GPUs have under way. A rank that leaves waits until what it has started has run
//! ([`NcclOptions::grace`]).
//!
//! Two ranks cannot share a GPU.

mod engine;
mod ffi;
mod options;
mod slots;
mod transport;

use super::{transport::Transport, world::Peers};
use crate::{Error, Result};
use engine::NcclOwner;
use ffi::{Communicator, NcclFunctions, UniqueId};
pub use options::NcclOptions;
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};
use transport::NcclTransport;
use xdit_kernels::Device;

/// NCCL, opened at run time.
#[derive(Clone)]
pub struct NcclLibrary(NcclFunctions);

impl fmt::Debug for NcclLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl NcclLibrary {
    /// Opens the library at this path: the file, the folder that has it, or that of a Python package (`site-packages`). Without a
    /// path, opens the one that the system finds.
    ///
    /// # Errors
    /// If there is none, or it is older than 2.14.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        NcclFunctions::open(path).map(Self).map_err(Error::other)
    }

    /// Returns the file of the library, if the system says.
    pub fn file(&self) -> Option<PathBuf> {
        self.0.file()
    }

    /// Returns the version, such as `2.28.9`.
    pub fn version(&self) -> String {
        self.0.version_text()
    }
}

/// Makes the transport of a world whose ranks have a GPU each: `device` is that of this rank. All ranks call it, in
/// [`join`](super::join).
///
/// # Errors
/// If the device is no GPU, ranks have different versions of NCCL, two have the same GPU, or NCCL fails.
///
/// # Examples
/// ```no_run
/// use xdit_comm::processes::{ProcessOptions, ProcessWorld, RankPlace, join, nccl::{NcclLibrary, NcclOptions, transport}};
/// use xdit_comm::xdit_kernels::Device;
/// fn enter(place: &RankPlace) -> xdit_comm::Result<ProcessWorld> {
///     let (library, device) = (NcclLibrary::open(None)?, Device::cuda(0)?);
///     join(place, ProcessOptions::default(), |peers| {
///         transport(peers, &library, &device, NcclOptions::default())
///     })
/// }
/// ```
pub fn transport(
    peers: &Peers,
    library: &NcclLibrary,
    device: &Device,
    options: NcclOptions,
) -> Result<Box<dyn Transport>> {
    let (rank, world_size) = (peers.rank(), peers.all().len());
    let failed = |reason: String| {
        Error::other(format!(
            "making the group of all ranks (rank {rank}): NCCL: {reason}"
        ))
    };
    if device.is_cpu() {
        return Err(failed(format!(
            "it moves tensors of GPUs, and the rank's device is {device}"
        )));
    }
    let functions = library.0;
    let mut said = functions.version.to_le_bytes().to_vec();
    if rank == 0 {
        said.extend(functions.unique_id().map_err(failed)?.0);
    }
    let said = peers.all_gather(&said)?;
    if said[rank][..4] != said[0][..4] {
        let first = i32::from_le_bytes(said[0][..4].try_into().unwrap_or_default());
        return Err(failed(format!(
            "this rank has version {}, and rank 0 has {}: install the same on all hosts",
            library.version(),
            ffi::version_text(first),
        )));
    }
    let Ok(id) = said[0][4..].try_into().map(UniqueId) else {
        return Err(failed("rank 0 has sent no id".to_owned()));
    };
    let queue = device.fork();
    let joined = Communicator::join(functions, &queue, (rank, world_size), id);
    let mut comm = joined.map_err(failed)?;
    let began = Instant::now();
    while !comm.poll().map_err(failed)? {
        peers.check()?;
        if began.elapsed() > options.deadline {
            return Err(failed(options.late()));
        }
        std::thread::sleep(engine::LOOK);
    }
    let owner = NcclOwner::start(functions, queue, options, peers.alarm()).map_err(failed)?;
    let number = owner.engine().adopt(comm).map_err(failed)?;
    let members = (0..world_size).collect();
    let transport = NcclTransport::new(owner.into(), number, members, rank, device)?;
    Ok(Box::new(transport))
}
