//! The functions that programs call.

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::arguments::{Config, In, Out, UniqueId};
use crate::misuse::{last, refuse};
use crate::status::{INTERNAL_ERROR, INVALID_ARGUMENT, INVALID_USAGE, Res, Status, text};
use crate::{comms, group, meetings, settings, splits};

fn called(body: impl FnOnce() -> Res) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => status,
        Err(_) => {
            crate::cuda::report("libnccl panicked: this is a bug of the double");
            INTERNAL_ERROR
        }
    }
}

fn check(call: &str, config: In<Config>) -> Res {
    match config.get()?.fault() {
        Some(fault) => refuse(INVALID_ARGUMENT, &format!("{call}: {fault}")),
        None => Ok(()),
    }
}

/// Calls that are not part of a group here.
fn outside(call: &str) -> Res {
    match group::is_open() {
        true => refuse(INVALID_USAGE, &format!("{call} within a group")),
        false => Ok(()),
    }
}

#[allow(non_snake_case, reason = "the functions are NVIDIA's")]
#[unsafe(no_mangle)]
extern "C" fn ncclGetErrorString(status: Status) -> *const c_char {
    text(status).as_ptr()
}

#[allow(non_snake_case, reason = "the functions are NVIDIA's")]
#[unsafe(no_mangle)]
extern "C" fn ncclGetLastError(_comm: u64) -> *const c_char {
    last()
}

macro_rules! exports {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => { $(
        $(#[$attribute])*
        #[allow(non_snake_case, reason = "the functions are NVIDIA's")]
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> Status {
            called(move || -> Res { $body })
        }
    )* };
}

exports! {
    fn ncclGetVersion(version: Out<c_int>) {
        version.set(settings::version())
    }

    fn ncclGetUniqueId(id: Out<UniqueId>) {
        id.set(meetings::unique_id())
    }

    fn ncclCommInitRankConfig(comm: Out<u64>, size: c_int, id: UniqueId, rank: c_int, config: In<Config>) {
        outside("ncclCommInitRankConfig")?;
        check("ncclCommInitRankConfig", config)?;
        meetings::join(comm, size, id, rank)
    }

    fn ncclCommSplit(comm: u64, color: c_int, key: c_int, new: Out<u64>, config: In<Config>) {
        outside("ncclCommSplit")?;
        check("ncclCommSplit", config)?;
        splits::split(comm, color, key, new)
    }

    fn ncclCommGetAsyncError(comm: u64, status: Out<Status>) {
        status.set(comms::state(comm)?)
    }

    fn ncclCommAbort(comm: u64) {
        outside("ncclCommAbort")?;
        comms::abort(comm)
    }

    fn ncclCommFinalize(comm: u64) {
        outside("ncclCommFinalize")?;
        comms::finalize(comm)
    }

    fn ncclCommDestroy(comm: u64) {
        outside("ncclCommDestroy")?;
        comms::destroy(comm)
    }

    fn ncclGroupStart() {
        group::start();
        Ok(())
    }

    fn ncclGroupEnd() {
        group::end()
    }

    fn ncclSend(buffer: u64, count: usize, dtype: u32, peer: c_int, comm: u64, stream: u64) {
        group::message(("ncclSend", true), buffer, (count, dtype), peer, comm, stream)
    }

    fn ncclRecv(buffer: u64, count: usize, dtype: u32, peer: c_int, comm: u64, stream: u64) {
        group::message(("ncclRecv", false), buffer, (count, dtype), peer, comm, stream)
    }
}
