//! NCCL, opened at run time, and its functions.

use libloading::Library;
use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    fmt,
    mem::ManuallyDrop,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The result of a call of NCCL, or the text of its error.
pub(crate) type NcclResult<T> = Result<T, String>;

/// The oldest version with communicators that do not block: 2.14.
const OLDEST: i32 = 21_400;
/// The first version with `ncclCommSplit`.
const SPLIT: i32 = 21_801;
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

const SUCCESS: u32 = 0;
const IN_PROGRESS: u32 = 7;

/// A `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UniqueId(pub(crate) [u8; Self::LEN]);

impl UniqueId {
    pub(crate) const LEN: usize = 128;
}

/// A `ncclConfig_t` as it was in 2.18. Newer versions have more fields, and take the size and the version for those that there are.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    cga_cluster_size: c_int,
    least_blocks: c_int,
    most_blocks: c_int,
    network: *const c_char,
    share_of_split: c_int,
}

impl Config {
    /// Nothing blocks; all else is left to NCCL.
    pub(super) fn non_blocking() -> Self {
        const UNDEFINED: c_int = c_int::MIN;
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 21_800,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            least_blocks: UNDEFINED,
            most_blocks: UNDEFINED,
            network: std::ptr::null(),
            share_of_split: UNDEFINED,
        }
    }
}

/// A `ncclComm_t`.
pub(super) type CommHandle = *mut c_void;
type MessageFunction =
    unsafe extern "C" fn(*mut c_void, usize, u32, c_int, CommHandle, *mut c_void) -> u32;

/// The functions that are called. A status is returned as a number: a newer library may have codes that no list has.
#[derive(Clone, Copy)]
pub(crate) struct NcclFunctions {
    pub(crate) version: i32,
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> u32,
    pub(super) init:
        unsafe extern "C" fn(*mut CommHandle, c_int, UniqueId, c_int, *mut Config) -> u32,
    pub(super) state: unsafe extern "C" fn(CommHandle, *mut u32) -> u32,
    pub(super) finalize: unsafe extern "C" fn(CommHandle) -> u32,
    pub(super) destroy: unsafe extern "C" fn(CommHandle) -> u32,
    pub(super) abort: unsafe extern "C" fn(CommHandle) -> u32,
    pub(super) group_start: unsafe extern "C" fn() -> u32,
    pub(super) group_end: unsafe extern "C" fn() -> u32,
    pub(super) send: MessageFunction,
    pub(super) receive: MessageFunction,
    pub(super) split:
        Option<unsafe extern "C" fn(CommHandle, c_int, c_int, *mut CommHandle, *mut Config) -> u32>,
    error_text: Option<unsafe extern "C" fn(u32) -> *const c_char>,
    last_error: Option<unsafe extern "C" fn(CommHandle) -> *const c_char>,
}

impl fmt::Debug for NcclFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NCCL {}", self.version_text())
    }
}

/// Where a folder that a caller names may have the library: itself, or as that of a Python package.
const FOLDERS: [&str; 4] = ["", "lib", "nccl/lib", "nvidia/nccl/lib"];

/// The files that a caller's path may mean, at least one.
fn candidates(path: Option<&Path>) -> NcclResult<Vec<PathBuf>> {
    let Some(path) = path else {
        return Ok(NAMES.map(PathBuf::from).into());
    };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let folders = FOLDERS.map(|folder| path.join(folder)).into_iter();
    let files = folders.flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let files: Vec<PathBuf> = files.filter(|file| file.is_file()).collect();
    match files.is_empty() {
        true => Err(format!(
            "the folder {} has no {}, nor have its folders {}; name the file, or its folder",
            path.display(),
            NAMES[0],
            FOLDERS[1..].join(", "),
        )),
        false => Ok(files),
    }
}

/// The address of a function, if the library has it.
///
/// # Safety
/// `F` is the type of this function.
unsafe fn optional<F: Copy>(library: &Library, name: &CStr) -> Option<F> {
    // SAFETY: the caller's promise.
    let symbol = unsafe { library.get::<F>(name.to_bytes_with_nul()) };
    symbol.ok().map(|symbol| *symbol)
}

/// As [`optional`]; the error says what is missing.
///
/// # Safety
/// As there.
unsafe fn required<F: Copy>(library: &Library, name: &CStr) -> NcclResult<F> {
    // SAFETY: the caller's promise.
    let found = unsafe { optional(library, name) };
    found.ok_or_else(|| {
        let name = name.to_string_lossy();
        format!("the library has no {name}; install NCCL 2.14 or newer")
    })
}

impl NcclFunctions {
    /// Opens the library: at this path, or where the system finds it.
    ///
    /// # Errors
    /// One line that says why there is none that can be used.
    pub(crate) fn open(path: Option<&Path>) -> NcclResult<Self> {
        let mut reasons = Vec::new();
        for candidate in candidates(path)? {
            // SAFETY: the name is that of NVIDIA's library, whose initialisers any program may run.
            match unsafe { Library::new(&candidate) } {
                // It has threads of its own, and stays open.
                Ok(library) => return Self::read(&ManuallyDrop::new(library)),
                Err(error) => {
                    // What the system's loader says, where the library keeps it apart.
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    let reason = source.unwrap_or_else(|| error.to_string());
                    reasons.push(format!("{} does not open ({reason})", candidate.display()));
                }
            }
        }
        let reason = reasons.swap_remove(0);
        Err(match path {
            Some(_) => format!("{reason}; name a file {} of NCCL 2.14 or newer", NAMES[0]),
            None => format!(
                "NCCL is not installed: {reason}; install it, or name the folder that has it"
            ),
        })
    }

    /// The file of the library, if the system says.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        let function: *const c_void = self.unique_id as *const c_void;
        // SAFETY: the pointer is to a description, which may be all zeros, and is written if the result is not zero. The name is then
        // null or ends with a zero, and the library is never closed.
        let name = unsafe {
            if libc::dladdr(function, found.as_mut_ptr()) == 0 {
                return None;
            }
            let name = found.assume_init().dli_fname;
            (!name.is_null()).then(|| CStr::from_ptr(name))?
        };
        let file = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
        // Links of packages have names that say less.
        file.is_absolute()
            .then(|| file.canonicalize().unwrap_or(file))
    }

    fn read(library: &Library) -> NcclResult<Self> {
        type Version = unsafe extern "C" fn(*mut c_int) -> u32;
        let mut version = 0;
        // SAFETY: `nccl.h` has these types for these functions; `version` is a number.
        unsafe {
            let ask = required::<Version>(library, c"ncclGetVersion")?;
            if ask(&mut version) != SUCCESS || version < OLDEST {
                return Err(format!(
                    "the library is NCCL {}; install 2.14 or newer",
                    version_text(version)
                ));
            }
            let split = optional(library, c"ncclCommSplit");
            Ok(Self {
                version,
                unique_id: required(library, c"ncclGetUniqueId")?,
                init: required(library, c"ncclCommInitRankConfig")?,
                state: required(library, c"ncclCommGetAsyncError")?,
                finalize: required(library, c"ncclCommFinalize")?,
                destroy: required(library, c"ncclCommDestroy")?,
                abort: required(library, c"ncclCommAbort")?,
                group_start: required(library, c"ncclGroupStart")?,
                group_end: required(library, c"ncclGroupEnd")?,
                send: required(library, c"ncclSend")?,
                receive: required(library, c"ncclRecv")?,
                split: split.filter(|_| version >= SPLIT),
                error_text: optional(library, c"ncclGetErrorString"),
                last_error: optional(library, c"ncclGetLastError"),
            })
        }
    }

    pub(crate) fn version_text(&self) -> String {
        version_text(self.version)
    }

    /// Whether a group can be split from a group.
    pub(crate) fn can_split(&self) -> bool {
        self.split.is_some()
    }

    pub(crate) fn unique_id(&self) -> NcclResult<UniqueId> {
        let mut id = UniqueId([0; UniqueId::LEN]);
        // SAFETY: loaded; the pointer is to an id.
        self.check("ncclGetUniqueId", unsafe { (self.unique_id)(&mut id) })?;
        Ok(id)
    }

    /// Returns whether a call is complete, and not in progress.
    pub(super) fn check(&self, function: &str, status: u32) -> NcclResult<bool> {
        match status {
            SUCCESS => Ok(true),
            IN_PROGRESS => Ok(false),
            _ => Err(self.explain(function, status)),
        }
    }

    fn explain(&self, function: &str, status: u32) -> String {
        // SAFETY: loaded; both functions return a text that ends with a zero, or null. `ncclGetLastError` takes no communicator.
        let (what, last) = unsafe {
            (
                self.error_text.map(|ask| text(ask(status))),
                self.last_error.map(|ask| text(ask(std::ptr::null_mut()))),
            )
        };
        let what = what.unwrap_or_else(|| format!("status {status}"));
        match last.filter(|last| !last.is_empty()) {
            Some(last) => format!("{function} failed: {what}: {last}"),
            None => format!("{function} failed: {what}"),
        }
    }
}

/// A text of NCCL on one line.
///
/// # Safety
/// It is null, or ends with a zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// 22809 is 2.28.9. Before 2.9, 2804 was 2.8.4.
pub(crate) fn version_text(version: i32) -> String {
    let unit = if version < 10_000 { 1000 } else { 10_000 };
    let (major, rest) = (version / unit, version % unit);
    format!("{major}.{}.{}", rest / 100, rest % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version_text(22_809), "2.28.9");
        assert_eq!(version_text(21_403), "2.14.3");
        assert_eq!(version_text(2_804), "2.8.4");
    }

    #[test]
    fn a_folder_may_be_that_of_a_python_package() {
        let name = format!("xdit-comm-nccl-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let lib = folder.join("nvidia/nccl/lib");
        std::fs::create_dir_all(&lib).unwrap();
        let empty = candidates(Some(&folder)).unwrap_err();
        let file = lib.join(NAMES[0]);
        std::fs::write(&file, "no library").unwrap();
        let found = candidates(Some(&folder));
        let error = NcclFunctions::open(Some(&folder)).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, Ok(vec![file.clone()]));
        assert!(empty.contains("has no libnccl.so.2"), "{empty}");
        assert_eq!(candidates(Some(&file)), Ok(vec![file.clone()]));
        assert_eq!(candidates(None), Ok(NAMES.map(PathBuf::from).into()));
        let start = format!("{} does not open (", file.display());
        assert!(error.starts_with(&start), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}
