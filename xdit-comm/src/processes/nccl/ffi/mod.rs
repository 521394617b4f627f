//! The calls of NCCL. All unsafe code of this transport is here, and every function of this module is safe to call.
//!
//! Three facts carry the proofs below:
//! - **Loaded.** A [`NcclFunctions`] exists only with the library, which is never unloaded, and its types are those of `nccl.h`.
//! - **One at a time.** A [`Communicator`] has the handle that NCCL gave, alone. Its methods take it exclusively, and it ends once: when
//!   it is dropped, or by [`Communicator::destroy`].
//! - **Kept.** NCCL reads and writes memory in the order of the stream that it is given. A [`Launch`] keeps its tensors until the work is
//!   in the stream. Then the pool of the GPU's memory keeps it: what is received lies in memory of that very queue, and the use of
//!   what is sent is noted.
#![allow(unsafe_code, reason = "NCCL is a library of C")]

mod communicator;
mod functions;

pub(super) use communicator::{Communicator, Launch};
pub(super) use functions::{NcclFunctions, NcclResult, UniqueId, version_text};
