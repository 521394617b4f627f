//! What a program does wrong: it is reported, and the call fails.

use std::ffi::{CString, c_char};
use std::sync::{Mutex, PoisonError};

use crate::cuda::report;
use crate::status::{Res, Status};

static LAST: Mutex<Option<CString>> = Mutex::new(None);

/// Reports misuse, and returns the code of the call. Nobody may hold a lock of this double that gates look at.
pub(crate) fn refuse<T>(status: Status, text: &str) -> Res<T> {
    let text = format!("nccl: {text}");
    report(&text);
    let text = CString::new(text).unwrap_or_default();
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    Err(status)
}

/// The text of the last misuse. It is never freed, as callers keep the pointer.
pub(crate) fn last() -> *const c_char {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.clone().unwrap_or_default().into_raw()
}
