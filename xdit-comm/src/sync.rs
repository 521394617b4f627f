//! What ranks as threads meet at: the standard library's locks. `tests/schedules` compiles the mailbox with shuttle's in
//! their place.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
