//! The calls of MPI. All unsafe code of this transport is here, and every function of this module is safe to call.
//!
//! Three facts carry the proofs below:
//! - **Initialised.** A [`Library`] exists only between MPI_Init_thread and MPI_Finalize (`init` makes it, and [`Finaliser`] takes
//!   the last one), and MPI has granted the level MPI_THREAD_MULTIPLE, so that any thread may call it.
//! - **Kept.** MPI reads and writes memory and handles between the start of an operation and its end. An [`Operation`] owns all of
//!   it, touches none of it before MPI has reported the end, and leaks it if it is dropped before.
//! - **Valid handles.** A [`Comm`] and an [`Operation`] contain handles that MPI gave, each freed once.
#![allow(unsafe_code, reason = "MPI is a library of C")]

mod codes;
mod datatypes;
mod library;
mod operation;

pub(super) use codes::MpiResult;
pub(super) use library::{Comm, Finaliser, Library};
pub(super) use operation::{MpiStep, Operation};
