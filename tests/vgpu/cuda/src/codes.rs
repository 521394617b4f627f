//! Result codes of the driver API, with the numbers and names of cuda.h.

/// A `CUresult`.
pub(crate) type Code = u32;

/// The result of a call: an error is the code that the caller gets.
pub(crate) type Res<T = ()> = Result<T, Code>;

macro_rules! codes {
    ($($name:ident = $value:expr),* $(,)?) => {
        $(pub(crate) const $name: Code = $value;)*

        /// The name of a code without `CUDA_ERROR_`.
        pub(crate) fn name(code: Code) -> Option<&'static str> {
            match code {
                0 => Some("SUCCESS"),
                $($value => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

codes! {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_TIMEOUT = 702,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    STREAM_CAPTURE_MERGE = 902,
    STREAM_CAPTURE_UNMATCHED = 903,
    STREAM_CAPTURE_UNJOINED = 904,
    STREAM_CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    UNKNOWN = 999,
}

/// The newest version of PTX that a driver compiles, from the release notes of PTX.
pub(crate) fn newest_ptx(driver: i32) -> (u32, u32) {
    match driver {
        ..12000 => (7, 8),
        12000..12010 => (8, 0),
        12010..12020 => (8, 1),
        12020..12030 => (8, 2),
        12030..12040 => (8, 3),
        12040..12050 => (8, 4),
        12050..12070 => (8, 5),
        12070..12080 => (8, 6),
        12080..12090 => (8, 7),
        12090..13000 => (8, 8),
        13000..13010 => (9, 0),
        _ => (9, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        assert_eq!(name(ILLEGAL_ADDRESS), Some("ILLEGAL_ADDRESS"));
        assert_eq!(name(12345), None);
        assert_eq!(newest_ptx(11080), (7, 8));
        assert_eq!(newest_ptx(12080), (8, 7));
        assert_eq!(newest_ptx(13000), (9, 0));
    }
}
