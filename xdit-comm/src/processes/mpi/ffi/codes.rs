//! What MPI returns, and the numbers that it takes.

use ::mpi::ffi::{self, MPI_MAX_ERROR_STRING, MPI_SUCCESS};
use std::ffi::c_int;

/// The result of a call of MPI, or its text for the error.
pub(crate) type MpiResult<T> = std::result::Result<T, String>;

pub(super) fn int(number: usize) -> MpiResult<c_int> {
    c_int::try_from(number).map_err(|_| format!("{number} is more than MPI can count"))
}

/// Returns the text of MPI for an error.
pub(super) fn check(code: c_int) -> MpiResult<()> {
    if code == MPI_SUCCESS as c_int {
        return Ok(());
    }
    let (mut text, mut len) = ([0_u8; MPI_MAX_ERROR_STRING as usize + 1], 0);
    // SAFETY: initialised, since a call returned the code; `text` has the room that the standard asks for.
    let known = unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut len) };
    match known == MPI_SUCCESS as c_int {
        true => Err(text_of(&text, len)),
        false => Err(format!("error {code} of MPI")),
    }
}

pub(super) fn text_of(bytes: &[u8], len: c_int) -> String {
    let len = usize::try_from(len).unwrap_or(0).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..len]);
    text.trim_end_matches('\0').trim().to_owned()
}
