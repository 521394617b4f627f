//! The locks of the standard library, through which ranks that are threads meet. `tests/schedules` compiles the mailbox with the
//! locks of shuttle instead.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
