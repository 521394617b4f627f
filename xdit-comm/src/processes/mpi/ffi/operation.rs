//! Operations that MPI has under way.

use super::{
    codes::{MpiResult, check, int},
    datatypes::{ExchangeArguments, readable, writable},
    library::{Comm, Library},
};
use ::mpi::ffi::{self, MPI_Count, MPI_Datatype, MPI_Request, MPI_Status};
use std::{
    mem::{ManuallyDrop, MaybeUninit},
    sync::Arc,
};
use xdit_kernels::{Tensor, TensorMut};

/// What MPI is asked to do.
#[derive(Debug)]
pub(crate) enum MpiStep {
    /// To rank `to`. Messages of a tag arrive in the order of their starts.
    Send {
        to: usize,
        tag: u8,
        tensor: Tensor,
    },
    /// From rank `from`. MPI writes into the tensor.
    Receive {
        from: usize,
        tag: u8,
        into: TensorMut,
    },
    /// The root gives the tensor, the others have memory for it.
    Broadcast {
        root: usize,
        gives: Option<Tensor>,
        into: Option<TensorMut>,
    },
    /// At most one tensor to each rank, and at most one from each.
    Exchange {
        gives: Vec<(usize, Tensor)>,
        into: Vec<(usize, TensorMut)>,
    },
    Barrier,
}

/// An operation that MPI has started.
#[derive(Debug)]
pub(crate) struct Operation {
    request: MPI_Request,
    done: bool,
    /// The bytes and the datatype of a receive, whose length MPI tells.
    expected: Option<(usize, MPI_Datatype)>,
    kept: ManuallyDrop<InUse>,
}

// SAFETY: its handles are as in `Handle`, and no pointer to its memory leaves it but to MPI.
unsafe impl Send for Operation {}

/// What MPI uses until the end of an operation.
#[derive(Debug)]
struct InUse {
    _comm: Arc<Comm>,
    gives: Vec<Tensor>,
    into: Vec<TensorMut>,
    /// Datatypes made for this operation.
    types: Vec<MPI_Datatype>,
    /// The arguments of an exchange: a place for each rank.
    sends: ExchangeArguments,
    receives: ExchangeArguments,
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.done {
            // SAFETY: it is dropped here only.
            unsafe { ManuallyDrop::drop(&mut self.kept) };
        }
    }
}

impl Operation {
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Returns the tensors that MPI has written, or none before the end.
    pub(crate) fn into_tensors(mut self) -> Vec<Tensor> {
        let into = match self.done {
            true => std::mem::take(&mut self.kept.into),
            false => Vec::new(),
        };
        into.into_iter().map(TensorMut::freeze).collect()
    }
}

impl Library {
    /// Starts an operation. Waits for nobody.
    pub(crate) fn begin(&self, comm: &Arc<Comm>, step: MpiStep) -> MpiResult<Operation> {
        let mut operation = Operation {
            // SAFETY: a constant of the installation.
            request: unsafe { ffi::RSMPI_REQUEST_NULL },
            done: false,
            expected: None,
            kept: ManuallyDrop::new(InUse {
                _comm: comm.clone(),
                gives: Vec::new(),
                into: Vec::new(),
                types: Vec::new(),
                sends: ExchangeArguments::default(),
                receives: ExchangeArguments::default(),
            }),
        };
        let (handle, request) = (comm.handle.0, &mut operation.request);
        let kept = &mut *operation.kept;
        let code = match step {
            MpiStep::Send { to, tag, tensor } => {
                let (from, bytes) = readable(&tensor)?;
                let (count, dtype) = self.elements(bytes, &mut kept.types)?;
                kept.gives.push(tensor);
                let to = int(to)?;
                // SAFETY: initialised, valid, kept: the tensor's bytes lie at `from`, as many as the datatype says.
                unsafe {
                    ffi::MPI_Isend(from.cast(), count, dtype, to, tag.into(), handle, request)
                }
            }
            MpiStep::Receive {
                from,
                tag,
                mut into,
            } => {
                let (to, bytes) = writable(&mut into)?;
                let (count, dtype) = self.elements(bytes, &mut kept.types)?;
                kept.into.push(into);
                operation.expected = Some((bytes, dtype));
                let from = int(from)?;
                // SAFETY: initialised, valid, kept: `bytes` bytes that nothing else uses lie at `to`. MPI writes no more than the
                // datatype says: a longer message is an error.
                unsafe {
                    ffi::MPI_Irecv(to.cast(), count, dtype, from, tag.into(), handle, request)
                }
            }
            MpiStep::Broadcast {
                root,
                gives,
                mut into,
            } => {
                let (address, bytes) = match (root == comm.place().0, &gives, &mut into) {
                    (true, Some(given), None) => {
                        let (address, bytes) = readable(given)?;
                        (address.cast_mut(), bytes)
                    }
                    (false, None, Some(into)) => writable(into)?,
                    _ => return Err("the root of a broadcast gives, and no other rank".to_owned()),
                };
                let (count, dtype) = self.elements(bytes, &mut kept.types)?;
                kept.gives.extend(gives);
                kept.into.extend(into);
                let root = int(root)?;
                // SAFETY: initialised, valid, kept: MPI reads the root's bytes, as in a send, and writes those of others, as in a
                // receive.
                unsafe { ffi::MPI_Ibcast(address.cast(), count, dtype, root, handle, request) }
            }
            MpiStep::Exchange { gives, mut into } => {
                let parts = gives
                    .iter()
                    .map(|(to, tensor)| Ok((*to, readable(tensor)?)));
                let parts: Vec<_> = parts.collect::<MpiResult<_>>()?;
                let sent = self.places(&parts, comm, &mut kept.sends, &mut kept.types)?;
                let parts = into.iter_mut().map(|(from, tensor)| {
                    let (address, bytes) = writable(tensor)?;
                    Ok((*from, (address.cast_const(), bytes)))
                });
                let parts: Vec<_> = parts.collect::<MpiResult<_>>()?;
                let got = self.places(&parts, comm, &mut kept.receives, &mut kept.types)?;
                kept.gives = gives.into_iter().map(|(_, tensor)| tensor).collect();
                kept.into = into.into_iter().map(|(_, tensor)| tensor).collect();
                let (sends, receives) = (&kept.sends, &kept.receives);
                let arrays = |places: &ExchangeArguments| {
                    (
                        places.counts.as_ptr(),
                        places.offsets.as_ptr(),
                        places.types.as_ptr(),
                    )
                };
                let (s, r) = (arrays(sends), arrays(receives));
                // SAFETY: initialised, valid, kept. The arrays have a place for each rank, and each datatype describes the bytes of
                // one tensor, counted from `sent` or `got` (`places`).
                unsafe {
                    ffi::MPI_Ialltoallw(
                        sent.cast(),
                        s.0,
                        s.1,
                        s.2,
                        got.cast_mut().cast(),
                        r.0,
                        r.1,
                        r.2,
                        handle,
                        request,
                    )
                }
            }
            // SAFETY: initialised, valid.
            MpiStep::Barrier => unsafe { ffi::MPI_Ibarrier(handle, request) },
        };
        check(code).map(|()| operation)
    }

    /// Returns whether an operation has ended. Waits for nobody, and lets MPI move what is under way.
    pub(crate) fn test(&self, operation: &mut Operation) -> MpiResult<bool> {
        if operation.done {
            return Ok(true);
        }
        let (mut flag, mut status) = (0, MaybeUninit::<MPI_Status>::zeroed());
        // SAFETY: initialised; MPI gave the request, and it has not ended before.
        check(unsafe { ffi::MPI_Test(&mut operation.request, &mut flag, status.as_mut_ptr()) })?;
        if flag == 0 {
            return Ok(false);
        }
        operation.done = true;
        if let Some((expected, dtype)) = operation.expected {
            let mut arrived: MPI_Count = 0;
            // SAFETY: initialised; the status is that of a receive of this datatype.
            check(unsafe { ffi::MPI_Get_elements_x(status.as_ptr(), dtype, &mut arrived) })?;
            if usize::try_from(arrived) != Ok(expected) {
                return Err(format!(
                    "{arrived} bytes arrived, and {expected} were expected"
                ));
            }
        }
        for mut dtype in operation.kept.types.drain(..) {
            // SAFETY: initialised; made for this operation, which has ended.
            check(unsafe { ffi::MPI_Type_free(&mut dtype) })?;
        }
        Ok(true)
    }
}
