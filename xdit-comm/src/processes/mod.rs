//! Ranks that are processes, on one host or on many.

#[cfg(unix)]
pub mod local;
#[cfg(unix)]
mod parts;
mod transport;

pub use transport::{Transfer, Transport};
