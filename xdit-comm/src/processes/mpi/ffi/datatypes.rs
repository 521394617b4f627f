//! Where tensors lie, as MPI is told of it.

use super::{
    codes::{MpiResult, check, int},
    library::{Comm, Library},
};
use ::mpi::ffi::{self, MPI_Aint, MPI_Datatype};
use std::{ffi::c_int, mem::MaybeUninit};
use xdit_kernels::{DeviceKind, Tensor, TensorMut};

/// The arguments of an exchange, one of each for each rank.
#[derive(Debug, Default)]
pub(super) struct ExchangeArguments {
    pub(super) counts: Vec<c_int>,
    pub(super) offsets: Vec<c_int>,
    pub(super) types: Vec<MPI_Datatype>,
}

impl Library {
    /// Returns so many bytes as a count and a datatype.
    pub(super) fn elements(
        &self,
        bytes: usize,
        made: &mut Vec<MPI_Datatype>,
    ) -> MpiResult<(c_int, MPI_Datatype)> {
        match bytes <= self.largest {
            // SAFETY: a constant of the installation.
            true => Ok((int(bytes)?, unsafe { ffi::RSMPI_UINT8_T })),
            false => Ok((1, self.blocks(0, bytes, made)?)),
        }
    }

    /// Makes a datatype of `bytes` bytes that begin `start` bytes after an address, in blocks that a count can tell.
    fn blocks(
        &self,
        start: MPI_Aint,
        bytes: usize,
        made: &mut Vec<MPI_Datatype>,
    ) -> MpiResult<MPI_Datatype> {
        let at = (0..bytes).step_by(self.largest);
        let lengths = at.clone().map(|at| int((bytes - at).min(self.largest)));
        let lengths: Vec<c_int> = lengths.collect::<MpiResult<_>>()?;
        let starts: Vec<MPI_Aint> = at.map(|at| start + at as MPI_Aint).collect();
        let mut dtype = MaybeUninit::uninit();
        // SAFETY: initialised; both arrays have one number a block; MPI writes the handle if it returns success.
        check(unsafe {
            ffi::MPI_Type_create_hindexed(
                int(lengths.len())?,
                lengths.as_ptr(),
                starts.as_ptr(),
                ffi::RSMPI_UINT8_T,
                dtype.as_mut_ptr(),
            )
        })?;
        // SAFETY: written, as checked above.
        let mut dtype = unsafe { dtype.assume_init() };
        made.push(dtype);
        // SAFETY: initialised, valid.
        check(unsafe { ffi::MPI_Type_commit(&mut dtype) })?;
        Ok(dtype)
    }

    /// Fills the arguments of an exchange: the parts of ranks, each an address and a number of bytes. Returns the address from which
    /// their datatypes count.
    pub(super) fn places(
        &self,
        parts: &[(usize, (*const u8, usize))],
        comm: &Comm,
        places: &mut ExchangeArguments,
        made: &mut Vec<MPI_Datatype>,
    ) -> MpiResult<*const u8> {
        let (_, size) = comm.place();
        places.counts = vec![0; size];
        places.offsets = vec![0; size];
        // SAFETY: a constant of the installation.
        places.types = vec![unsafe { ffi::RSMPI_UINT8_T }; size];
        let full = parts.iter().filter(|(_, (_, bytes))| *bytes > 0);
        let first = full.clone().map(|(_, (address, _))| *address).min();
        // Some addresses have a meaning of their own, so an exchange of nothing has one that exists.
        let first = first.unwrap_or(places.counts.as_ptr().cast());
        for (rank, (address, bytes)) in full {
            if *rank >= size {
                return Err(format!("no rank {rank} among {size}"));
            }
            let start = (address.addr() - first.addr()) as MPI_Aint;
            places.types[*rank] = self.blocks(start, *bytes, made)?;
            places.counts[*rank] = 1;
        }
        Ok(first)
    }
}

/// Where the bytes of a tensor lie, and how many.
pub(super) fn readable(tensor: &Tensor) -> MpiResult<(*const u8, usize)> {
    match tensor.device().kind() {
        DeviceKind::Cpu(_) => Ok((tensor.as_ptr(), tensor.byte_len())),
        _ => Err(format!(
            "MPI moves tensors of the processor, and not of {}",
            tensor.device()
        )),
    }
}

pub(super) fn writable(tensor: &mut TensorMut) -> MpiResult<(*mut u8, usize)> {
    let bytes = tensor.host_bytes_mut().map_err(|error| error.to_string())?;
    Ok((bytes.as_mut_ptr(), bytes.len()))
}
