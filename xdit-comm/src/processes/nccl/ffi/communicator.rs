//! One rank's communicator.

use super::functions::{CommHandle, Config, NcclFunctions, NcclResult, UniqueId};
use crate::Spec;
use std::ffi::{c_int, c_void};
use xdit_kernels::{Device, Tensor, TensorMut};

/// The numbers that travel are bytes.
const BYTES: u32 = 1; // ncclUint8

/// Tensors that ranks exchange in one group of calls, with the other ranks. Between two ranks, they travel in this order.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    pub(crate) gives: Vec<(usize, Tensor)>,
    pub(crate) expects: Vec<(usize, Spec)>,
}

impl Launch {
    /// About how many entries it makes in the stream.
    pub(crate) fn entries(&self) -> usize {
        self.expects.len() + 4
    }
}

/// The memory that NCCL uses until the work is in the queue.
#[derive(Debug)]
struct LaunchMemory {
    gives: Vec<(usize, Tensor)>,
    /// In memory of the queue that the communicator uses.
    into: Vec<(usize, TensorMut)>,
}

/// One rank's end of a group of ranks. If it is dropped, whatever it has under way is ended.
#[derive(Debug)]
pub(crate) struct Communicator {
    functions: NcclFunctions,
    /// Before 2.18, NCCL reads the handle there after the call that makes it, too.
    handle: Box<CommHandle>,
    /// Its work runs there.
    queue: Device,
    /// Work that is perhaps not yet in the queue.
    launch: Option<LaunchMemory>,
    /// Where NCCL writes the handle of a group that is being split off.
    child: Option<Box<CommHandle>>,
}

// SAFETY: NCCL takes calls for one communicator from any thread, one at a time.
unsafe impl Send for Communicator {}

fn int(number: usize) -> NcclResult<c_int> {
    c_int::try_from(number).map_err(|_| format!("{number} is more than NCCL can count"))
}

fn current(queue: &Device) -> NcclResult<()> {
    queue.make_cuda_current().map_err(|error| error.to_string())
}

impl Communicator {
    /// Begins to bring the ranks together that have this id. [`poll`](Self::poll) tells when they have come.
    pub(crate) fn join(
        functions: NcclFunctions,
        queue: &Device,
        (rank, world_size): (usize, usize),
        id: UniqueId,
    ) -> NcclResult<Self> {
        let (rank, size) = (int(rank)?, int(world_size)?);
        current(queue)?;
        let (mut handle, mut config) = (Box::new(std::ptr::null_mut()), Config::non_blocking());
        // SAFETY: loaded; the pointers are to a handle, which keeps its place, and to a config, which NCCL copies.
        let status = unsafe { (functions.init)(&mut *handle, size, id, rank, &mut config) };
        if let Err(error) = functions.check("ncclCommInitRankConfig", status) {
            match handle.is_null() {
                // NCCL may still write there.
                true => {
                    Box::leak(handle);
                }
                false => drop(Self::of(functions, handle, queue)),
            }
            return Err(error);
        }
        match handle.is_null() {
            true => Err("ncclCommInitRankConfig gives no communicator".to_owned()),
            false => Ok(Self::of(functions, handle, queue)),
        }
    }

    fn of(functions: NcclFunctions, handle: Box<CommHandle>, queue: &Device) -> Self {
        Self {
            functions,
            handle,
            queue: queue.clone(),
            launch: None,
            child: None,
        }
    }

    /// Returns whether nothing is in progress: neither the making of a group, nor a launch that is not in the queue.
    ///
    /// # Errors
    /// If NCCL has failed, also in the work that it has under way.
    pub(crate) fn poll(&mut self) -> NcclResult<bool> {
        let mut state = 0;
        // SAFETY: loaded, one at a time; the pointer is to a number.
        let asked = unsafe { (self.functions.state)(*self.handle, &mut state) };
        self.functions.check("ncclCommGetAsyncError", asked)?;
        self.functions.check("NCCL's work", state)
    }

    /// Begins a group of calls. Nothing may be in progress. [`poll`](Self::poll) tells when it is in the queue.
    pub(crate) fn begin(&mut self, launch: Launch) -> NcclResult<()> {
        let Some(stream) = self.queue.cuda_stream() else {
            return Err("the queue is none of a GPU".to_owned());
        };
        // Where ranks disagree, NCCL may write less than all of it: then it holds zeros.
        let zeros = |spec: &Spec| TensorMut::zeros(spec.shape, spec.dtype, &self.queue);
        let into = launch.expects.iter();
        let into = into.map(|(from, spec)| Ok((*from, zeros(spec)?)));
        let into = into.collect::<xdit_kernels::Result<Vec<_>>>();
        let launch = self.launch.insert(LaunchMemory {
            gives: launch.gives,
            into: into.map_err(|error| error.to_string())?,
        });
        if launch.gives.is_empty() && launch.into.is_empty() {
            return Ok(());
        }
        current(&self.queue)?;
        let functions = &self.functions;
        // SAFETY: loaded.
        functions.check("ncclGroupStart", unsafe { (functions.group_start)() })?;
        let mut called = Ok(());
        let mut call = |function, name, peer: usize, at: *mut c_void, bytes| {
            let call: unsafe extern "C" fn(_, _, _, _, _, _) -> u32 = function;
            if called.is_ok() {
                called = int(peer).and_then(|peer| {
                    // SAFETY: loaded, one at a time; `bytes` bytes lie at `at`, and are kept.
                    let status = unsafe { call(at, bytes, BYTES, peer, *self.handle, stream) };
                    functions.check(name, status).map(drop)
                });
            }
        };
        for (to, tensor) in &launch.gives {
            self.queue.note_cuda_use(tensor);
            // NCCL only reads it.
            let at = tensor.as_ptr().cast_mut().cast();
            call(functions.send, "ncclSend", *to, at, tensor.byte_len());
        }
        for (from, tensor) in &mut launch.into {
            let bytes = tensor.view().numel() * tensor.view().dtype().size();
            call(
                functions.receive,
                "ncclRecv",
                *from,
                tensor.as_mut_ptr().cast(),
                bytes,
            );
        }
        // SAFETY: loaded; ends the group that was started above.
        let ended = unsafe { (functions.group_end)() };
        called?;
        functions.check("ncclGroupEnd", ended).map(drop)
    }

    /// Returns the tensors that are received, once the launch is in the queue, whose later work sees them.
    pub(crate) fn launched(&mut self) -> Vec<TensorMut> {
        let into = self.launch.take().map(|launch| launch.into);
        let into = into.unwrap_or_default().into_iter();
        into.map(|(_, tensor)| tensor).collect()
    }

    /// Begins to make the communicator of the ranks that pass the same color, in the order of their keys. All ranks call it.
    /// [`poll`](Self::poll) tells when [`child`](Self::child) has it.
    pub(crate) fn split(&mut self, color: usize, key: usize) -> NcclResult<()> {
        let (color, key) = (int(color)?, int(key)?);
        let Some(split) = self.functions.split else {
            return Err("the library has no ncclCommSplit".to_owned());
        };
        current(&self.queue)?;
        let mut config = Config::non_blocking();
        let child = self.child.insert(Box::new(std::ptr::null_mut()));
        // SAFETY: loaded, one at a time; NCCL copies the config. It may write the handle later: the box keeps its place as long as this
        // communicator lives.
        let status = unsafe { split(*self.handle, color, key, &mut **child, &mut config) };
        self.functions.check("ncclCommSplit", status).map(drop)
    }

    /// Returns the communicator that was split off, which may itself be in progress.
    pub(crate) fn child(&mut self) -> NcclResult<Self> {
        match self.child.take() {
            Some(child) if !child.is_null() => Ok(Self::of(self.functions, child, &self.queue)),
            _ => Err("ncclCommSplit gives no communicator".to_owned()),
        }
    }

    /// Begins to end it, after what it has under way. [`poll`](Self::poll) tells when it has ended.
    pub(crate) fn finalize(&mut self) -> NcclResult<()> {
        current(&self.queue)?;
        // SAFETY: loaded, one at a time.
        let status = unsafe { (self.functions.finalize)(*self.handle) };
        self.functions.check("ncclCommFinalize", status).map(drop)
    }

    /// Gives it back, after [`finalize`](Self::finalize).
    pub(crate) fn destroy(mut self) -> NcclResult<()> {
        current(&self.queue)?;
        let handle = std::mem::replace(&mut *self.handle, std::ptr::null_mut());
        // SAFETY: loaded, one at a time; nobody has the handle any more.
        let status = unsafe { (self.functions.destroy)(handle) };
        self.functions.check("ncclCommDestroy", status).map(drop)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // NCCL may be about to write the handle of a group: its place stays, and so does that group.
        if let Some(child) = self.child.take() {
            Box::leak(child);
        }
        if !self.handle.is_null() && current(&self.queue).is_ok() {
            // SAFETY: loaded, one at a time; nobody has the handle after this. A failure has nobody to be told to.
            unsafe { (self.functions.abort)(*self.handle) };
        }
    }
}
