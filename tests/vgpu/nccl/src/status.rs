//! Result codes and numbers of nccl.h.

/// A `ncclResult_t`.
pub(crate) type Status = u32;

/// The result of a call.
pub(crate) type Res<T = ()> = Result<T, Status>;

pub(crate) const CUDA_ERROR: Status = 1;
pub(crate) const INTERNAL_ERROR: Status = 3;
pub(crate) const INVALID_ARGUMENT: Status = 4;
pub(crate) const INVALID_USAGE: Status = 5;
pub(crate) const REMOTE_ERROR: Status = 6;
pub(crate) const IN_PROGRESS: Status = 7;

/// The text of a code, as `ncclGetErrorString` has it.
pub(crate) fn text(status: Status) -> &'static std::ffi::CStr {
    match status {
        0 => c"no error",
        CUDA_ERROR => c"unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        2 => c"unhandled system error (run with NCCL_DEBUG=INFO for details)",
        INTERNAL_ERROR => c"internal error - please report this issue to the NCCL developers",
        INVALID_ARGUMENT => c"invalid argument (run with NCCL_DEBUG=WARN for details)",
        INVALID_USAGE => c"invalid usage (run with NCCL_DEBUG=WARN for details)",
        REMOTE_ERROR => c"remote process exited or there was a network error",
        IN_PROGRESS => c"NCCL operation in progress",
        _ => c"unknown result code",
    }
}

/// The bytes of a number of a `ncclDataType_t`.
pub(crate) fn bytes_of(dtype: u32) -> Option<usize> {
    match dtype {
        0 | 1 | 10 | 11 => Some(1),
        6 | 9 => Some(2),
        2 | 3 | 7 => Some(4),
        4 | 5 | 8 => Some(8),
        _ => None,
    }
}
