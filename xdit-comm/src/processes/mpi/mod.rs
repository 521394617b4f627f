//! Tensors between processes that MPI started.
//!
//! All operations are MPI's own non-blocking ones: messages are `Isend` and `Irecv`, and so are the parts of a scatter or gather.
//! A broadcast is `Ibcast` (but messages if a count cannot tell its bytes), a barrier `Ibarrier`. All-to-all, and what is built on
//! it (all-gather and the reductions, which add in rank order as [`threads`](crate::threads) does), is `Ialltoallw`: the form of
//! `Alltoallv` that takes each tensor from where it lies. `Alltoallv` has one buffer for all ranks, so that tensors would be packed
//! into it first.
//!
//! Counts of MPI are 32 bits wide. A tensor of more bytes travels as one element of a datatype that describes it in blocks.
//!
//! MPI moves data only while a process calls it. A thread of the transport calls it while something is under way and the rank
//! computes, so that a batch runs to its end without the rank.
//!
//! MPI may hold a large message back until its receive has been started. The control plane does not know it, so it does not find ranks
//! that wait for such messages to each other and start no receive. Start both in one batch.
//!
//! # After a failure
//! MPI cannot take back what it has started, and `MPI_Finalize` waits for all ranks. After [`Transport::abort`] the transport therefore
//! does not call MPI any more. It does not give back memory that MPI might still use, and [`Mpi`] does not finalise. The process ends
//! as any other. Launchers of MPI may report that it ended without finalising, and end the other processes.
//!
//! UCX, on which some installations of MPI stand, ends a process that copies from the memory of another one which dies at that
//! moment. The transport cannot prevent it.

mod engine;
mod ffi;
mod options;
mod transport;

use super::{transport::Transport, world::Peers};
use crate::{Call, Error, Op, Result, Spec};
use engine::MpiEngine;
use ffi::{Comm, Finaliser, Library, MpiResult, MpiStep};
pub use options::MpiOptions;
use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use transport::MpiTransport;
use xdit_kernels::{Device, Tensor};

/// How often a process looks whether what rank 0 tells has come.
const LOOK: Duration = Duration::from_millis(1);

/// MPI in this process, from its initialisation to its end. A process has one, on the thread that initialised MPI.
///
/// If it is dropped without [`finalise`](Self::finalise), MPI is not finalised: see the [module](self).
pub struct Mpi {
    engine: Arc<MpiEngine>,
    /// The group that finalises together.
    world: OnceLock<Arc<Comm>>,
    place: (usize, usize),
    options: MpiOptions,
    thread: Option<JoinHandle<()>>,
    finaliser: Option<Finaliser>,
    /// MPI wants to be finalised by the thread that initialised it.
    stays: PhantomData<*const ()>,
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rank, size) = self.place;
        write!(f, "MPI process {rank} of {size}")
    }
}

fn error(doing: &str, reason: &str) -> Error {
    Error::other(format!("{doing}: {reason}"))
}

impl Mpi {
    /// Initialises MPI, with the thread level MPI_THREAD_MULTIPLE. From now on errors of MPI are results, and do not end the process.
    ///
    /// # Errors
    /// If MPI was initialised before in this process, or grants a lower thread level.
    pub fn init(options: MpiOptions) -> Result<Self> {
        let begin = || -> MpiResult<Self> {
            let (library, finaliser) = Library::init(options.largest_count)?;
            let place = library.world()?;
            let engine = Arc::new(MpiEngine::new(library));
            Ok(Self {
                thread: Some(engine.drive()?),
                engine,
                world: OnceLock::new(),
                place,
                options,
                finaliser: Some(finaliser),
                stays: PhantomData,
            })
        };
        begin().map_err(|reason| error("initialising MPI", &reason))
    }

    /// Returns the name and the version of the MPI installation, in a few words.
    pub fn version() -> String {
        // MPICH continues with pages about how it was built, Open MPI with the name of the package.
        let text = Library::version();
        let head = text.split(['\n', ',']).next().unwrap_or_default();
        head.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Returns the rank that MPI gave this process.
    pub fn rank(&self) -> usize {
        self.place.0
    }

    /// Returns the number of processes that MPI started.
    pub fn world_size(&self) -> usize {
        self.place.1
    }

    /// Returns the transport of this process in the world of `peers`, whose ranks may have another order than MPI's. Tensors arrive on
    /// `device`, one of the processor. All processes call it.
    ///
    /// # Errors
    /// If the world does not have all processes of MPI, or MPI fails; [`Error::PeerLost`] if a rank has failed meanwhile.
    pub fn transport(&self, peers: &Peers, device: &Device) -> Result<Box<dyn Transport>> {
        let place = (peers.rank(), peers.all().len());
        let made = self.whole(place, device, || peers.check().is_ok());
        match made {
            Ok(made) => Ok(Box::new(made)),
            // The cause is better than its effect.
            Err(error) => Err(peers.check().err().unwrap_or(error)),
        }
    }

    /// Makes the transport of rank `rank` of all processes, while `goes_on`.
    fn whole(
        &self,
        (rank, world_size): (usize, usize),
        device: &Device,
        goes_on: impl Fn() -> bool,
    ) -> Result<MpiTransport> {
        const DOING: &str = "making the group of all processes of MPI";
        let started = self.world_size();
        if started != world_size {
            let reason = format!("MPI started {started} processes, and the group has {world_size}");
            return Err(error(DOING, &reason));
        }
        let made = (self.engine).split(None, (0, rank), self.options.deadline, goes_on);
        let comm = made.map_err(|reason| error(DOING, &reason))?;
        if comm.place() != (rank, world_size) {
            return Err(error(
                DOING,
                "two processes have the same rank in the group",
            ));
        }
        let comm = Arc::new(comm);
        // One of several worlds is enough to meet in at the end.
        let _ = self.world.set(comm.clone());
        Ok(MpiTransport::of_world(
            self.engine.clone(),
            comm,
            (rank, world_size),
            device,
            self.options,
        ))
    }

    /// Returns the bytes of rank 0 on all processes. Others pass none. For what processes must know before they can meet, such as the
    /// address of rank 0.
    ///
    /// # Collective
    /// All processes call it.
    ///
    /// # Errors
    /// If a process does not come within the deadline, or MPI fails.
    pub fn bytes_of_rank_0(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let device = Device::cpu();
        let transport = self.whole(self.place, &device, || true)?;
        let tell = |gives: Tensor| self.broadcast(&transport, gives);
        let length = u32::try_from(bytes.len()).map_err(Error::other)?;
        let length = tell(Tensor::from_slice(&[length], [1], &device)?)?;
        let length = length.to_vec_blocking::<u32>()?[0] as usize;
        let mut own = bytes.to_vec();
        own.resize(length, 0);
        let told = tell(Tensor::from_slice(&own, [length], &device)?)?;
        Ok(told.to_vec_blocking::<u8>()?)
    }

    /// Returns the tensor of rank 0. Others pass one of the same shape.
    fn broadcast(&self, transport: &MpiTransport, own: Tensor) -> Result<Tensor> {
        let expects = vec![Spec::of(&own)];
        let gives = (self.rank() == 0).then_some(own);
        let mut transfer = transport.start(vec![Call {
            op: Op::Broadcast { root: 0 },
            gives: gives.into_iter().collect(),
            expects,
        }])?;
        let began = Instant::now();
        loop {
            if let Some(mut told) = transfer.poll()? {
                return Ok(told.swap_remove(0));
            }
            if began.elapsed() > self.options.deadline {
                let seconds = self.options.deadline.as_secs_f64();
                let reason = format!("it does not come within {seconds:.1} s");
                return Err(error("what rank 0 tells all processes of MPI", &reason));
            }
            transfer.rest(LOOK);
        }
    }

    /// Finalises MPI, after all that was started has ended on all processes. All processes call it, if none has failed. Calls on the
    /// transports are errors from then on.
    ///
    /// # Errors
    /// If a process does not come within the deadline, or the transport was aborted. MPI is not finalised then.
    pub fn finalise(mut self) -> Result<()> {
        let ended = self
            .end()
            .map_err(|reason| error("finalising MPI", &reason));
        drop(self);
        ended
    }

    fn end(&mut self) -> MpiResult<()> {
        // All meet here, so that MPI_Finalize, which waits for all, finds them.
        if let Some(world) = self.world.take() {
            let meeting = self.engine.begin(&world, vec![MpiStep::Barrier])?;
            self.engine.forget(meeting);
        }
        let library = self.engine.finish(self.options.deadline)?;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let finaliser = self.finaliser.take();
        finaliser.map_or(Ok(()), |finaliser| finaliser.finalise(library))
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        self.engine.abort();
        if let Some(thread) = self.thread.take() {
            // It only ever calls what returns at once.
            let _ = thread.join();
        }
    }
}
