//! NCCL in a few words, for programs whose ranks are threads. As in `driver.rs`, nothing is checked here.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys;
use libloading::Library;

use crate::Outcome;
use crate::driver::{Pointer, Stream, checked};

pub(crate) type Comm = *mut c_void;

/// A `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Id(pub(crate) [u8; 128]);

/// A `ncclConfig_t` of 2.18.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Config {
    pub(crate) size: usize,
    pub(crate) magic: u32,
    pub(crate) version: u32,
    pub(crate) blocking: c_int,
    pub(crate) numbers: [c_int; 3],
    pub(crate) network: usize,
    pub(crate) share: c_int,
}

impl Config {
    pub(crate) fn non_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 21_800,
            blocking: 0,
            numbers: [c_int::MIN; 3],
            network: 0,
            share: c_int::MIN,
        }
    }
}

pub(crate) const F32: u32 = 7;
pub(crate) const I32: u32 = 2;
const IN_PROGRESS: u32 = 7;

/// The library; the threads of all ranks share it.
pub(crate) struct Nccl {
    library: Library,
    /// Whether a rank has failed, so that others do not wait for it.
    pub(crate) failed: AtomicBool,
}

/// Calls a function by its name; `Ok` if it is complete or in progress.
macro_rules! nccl {
    ($nccl:expr, $name:ident($($argument:expr => $type:ty),* $(,)?)) => {{
        // SAFETY: these programs run on the double alone, which has functions of these types and checks handles itself.
        let status = unsafe { $nccl.function::<unsafe extern "C" fn($($type),*) -> u32>(concat!(stringify!($name), "\0"))?($($argument),*) };
        $crate::nccl_calls::done(stringify!($name), status)
    }};
}

pub(crate) fn done(name: &str, status: u32) -> Outcome {
    match status {
        0 | IN_PROGRESS => Ok(()),
        _ => Err(format!("{name}: {status}")),
    }
}

impl Nccl {
    pub(crate) fn open() -> Result<Self, String> {
        // SAFETY: the name is that of the double, whose initialisers do nothing.
        let library = unsafe { Library::new("libnccl.so.2") };
        Ok(Self {
            library: library.map_err(|error| error.to_string())?,
            failed: AtomicBool::new(false),
        })
    }

    pub(crate) fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: callers name a function and its type.
        let symbol = unsafe { self.library.get::<F>(name.as_bytes()) };
        symbol
            .map(|symbol| *symbol)
            .map_err(|error| error.to_string())
    }

    pub(crate) fn id(&self) -> Result<Id, String> {
        let mut id = Id([0; 128]);
        nccl!(self, ncclGetUniqueId(&mut id => *mut Id))?;
        Ok(id)
    }

    /// Begins to join; `wait` tells the end.
    pub(crate) fn join(
        &self,
        ranks: c_int,
        id: Id,
        rank: c_int,
        config: Config,
    ) -> Result<Comm, String> {
        let (mut comm, mut config) = (std::ptr::null_mut(), config);
        nccl!(self, ncclCommInitRankConfig(
            &mut comm => *mut Comm, ranks => c_int, id => Id, rank => c_int, &mut config => *mut Config
        ))?;
        Ok(comm)
    }

    /// Polls until nothing is in progress.
    pub(crate) fn wait(&self, comm: Comm) -> Outcome {
        loop {
            let mut status = 0;
            nccl!(self, ncclCommGetAsyncError(comm => Comm, &mut status => *mut u32))?;
            if status != IN_PROGRESS {
                return done("a call", status);
            }
            self.look()?;
        }
    }

    /// An error if another rank has failed.
    fn look(&self) -> Outcome {
        if self.failed.load(Ordering::Relaxed) {
            return Err("another rank has failed".to_owned());
        }
        std::thread::yield_now();
        Ok(())
    }

    pub(crate) fn start(&self) -> Outcome {
        nccl!(self, ncclGroupStart())
    }

    pub(crate) fn end(&self) -> Outcome {
        nccl!(self, ncclGroupEnd())
    }

    pub(crate) fn send(
        &self,
        from: Pointer,
        (count, dtype): (usize, u32),
        to: c_int,
        comm: Comm,
        stream: Stream,
    ) -> Outcome {
        nccl!(self, ncclSend(
            from => u64, count => usize, dtype => u32, to => c_int, comm => Comm, stream => Stream
        ))
    }

    pub(crate) fn receive(
        &self,
        to: Pointer,
        (count, dtype): (usize, u32),
        from: c_int,
        comm: Comm,
        stream: Stream,
    ) -> Outcome {
        nccl!(self, ncclRecv(
            to => u64, count => usize, dtype => u32, from => c_int, comm => Comm, stream => Stream
        ))
    }

    /// Begins to split; the address is there when the parent is ready.
    pub(crate) fn split(&self, comm: Comm, color: c_int, key: c_int, new: &mut Comm) -> Outcome {
        let mut config = Config::non_blocking();
        nccl!(self, ncclCommSplit(
            comm => Comm, color => c_int, key => c_int, new => *mut Comm, &mut config => *mut Config
        ))
    }

    pub(crate) fn abort(&self, comm: Comm) -> Outcome {
        nccl!(self, ncclCommAbort(comm => Comm))
    }

    pub(crate) fn finalize(&self, comm: Comm) -> Outcome {
        nccl!(self, ncclCommFinalize(comm => Comm))?;
        self.wait(comm)
    }

    pub(crate) fn destroy(&self, comm: Comm) -> Outcome {
        nccl!(self, ncclCommDestroy(comm => Comm))
    }

    /// Waits for a stream.
    pub(crate) fn synchronize(&self, stream: Stream) -> Outcome {
        loop {
            // SAFETY: as in `driver.rs`.
            match unsafe { sys::cuStreamQuery(stream) } {
                sys::CUresult::CUDA_ERROR_NOT_READY => self.look()?,
                code => return checked("cuStreamQuery", code),
            }
        }
    }
}
