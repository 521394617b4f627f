//! Settings.

use crate::DEADLINE;
use std::time::Duration;

/// Settings of [`Mpi`](super::Mpi).
#[derive(Debug, Clone, Copy)]
pub struct MpiOptions {
    /// How long other ranks may take to make a group together, or to finalise.
    pub deadline: Duration,
    /// The most bytes that MPI is told of as one count, up to 2^31 − 1. Tensors of more bytes are described in blocks of this size.
    /// Tests lower it.
    pub largest_count: usize,
}

impl Default for MpiOptions {
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            largest_count: 1 << 30,
        }
    }
}
