//! cuBLASLt, opened at run time when a product first needs it.

use super::error::SUCCESS;
use cudarc::cublaslt::sys::{
    cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatmulPreference_t, cublasLtMatrixLayout_t,
};
use cudarc::driver::sys::CUstream;
use libloading::Library;
use std::{
    ffi::{c_int, c_void},
    mem::ManuallyDrop,
    path::PathBuf,
};

#[cfg(windows)]
const NAMES: [&str; 2] = ["cublasLt64_13.dll", "cublasLt64_12.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];

/// Declares the functions that are called. A status is returned as a number: newer libraries may have codes that no list has.
macro_rules! functions {
    ($($name:ident($($of:ty),*);)*) => {
        /// The library's functions, and a handle for the context that was current. It is never unloaded.
        #[allow(non_snake_case, reason = "the functions have the library's names")]
        pub(super) struct BlasLibrary {
            $(pub(super) $name: unsafe extern "C" fn($($of),*) -> u32,)*
            pub(super) handle: cublasLtHandle_t,
        }

        impl BlasLibrary {
            /// Reads all functions; the error is the name of one that is missing.
            fn read(library: &Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the library's function of this name has this signature (cublasLt.h).
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($of),*) -> u32>(
                                concat!(stringify!($name), "\0").as_bytes(),
                            )
                        };
                        *symbol.map_err(|_| stringify!($name))?
                    },)*
                    handle: std::ptr::null_mut(),
                })
            }
        }
    };
}

functions! {
    cublasLtCreate(*mut cublasLtHandle_t);
    cublasLtDestroy(cublasLtHandle_t);
    cublasLtMatrixLayoutCreate(*mut cublasLtMatrixLayout_t, u32, u64, u64, i64);
    cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t);
    cublasLtMatmulDescCreate(*mut cublasLtMatmulDesc_t, u32, u32);
    cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t);
    cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, u32, *const c_void, usize);
    cublasLtMatmulPreferenceCreate(*mut cublasLtMatmulPreference_t);
    cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t);
    cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, u32, *const c_void, usize);
    cublasLtMatmulAlgoGetHeuristic(
        cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, c_int, *mut ProductAlgorithm, *mut c_int
    );
    cublasLtMatmul(
        cublasLtHandle_t, cublasLtMatmulDesc_t, *const c_void, *const c_void, cublasLtMatrixLayout_t, *const c_void,
        cublasLtMatrixLayout_t, *const c_void, *const c_void, cublasLtMatrixLayout_t, *mut c_void,
        cublasLtMatrixLayout_t, *const u64, *mut c_void, usize, CUstream
    );
}

/// What the library answers when it is asked for an algorithm (`cublasLtMatmulHeuristicResult_t`), with its status as a number.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct ProductAlgorithm {
    pub(super) data: [u64; 8],
    pub(super) workspace_bytes: usize,
    status: u32,
    waves: f32,
    reserved: [c_int; 4],
}

impl std::fmt::Debug for BlasLibrary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlasLibrary")
    }
}

// SAFETY: cuBLASLt's functions may be called from several threads with one handle.
unsafe impl Send for BlasLibrary {}
// SAFETY: as above.
unsafe impl Sync for BlasLibrary {}

impl BlasLibrary {
    /// The library in one of these folders, else where the system looks for libraries, with a handle for the current context.
    ///
    /// # Errors
    /// One line that says what is missing.
    pub(super) fn open(folders: &[PathBuf]) -> Result<Self, String> {
        let mut functions = Self::find(folders)?;
        // SAFETY: the pointer is to a handle.
        match unsafe { (functions.cublasLtCreate)(&mut functions.handle) } {
            SUCCESS => Ok(functions),
            status => Err(format!("cublasLtCreate failed: status {status}")),
        }
    }

    /// The same without a handle, for which no context is needed: whether products can be computed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn find(folders: &[PathBuf]) -> Result<Self, String> {
        let in_folders = folders
            .iter()
            .flat_map(|folder| NAMES.iter().map(move |name| folder.join(name)));
        let candidates = in_folders.chain(NAMES.iter().map(PathBuf::from));
        // SAFETY: these are the names of NVIDIA's library, whose initialisers any program may run.
        let opened = candidates.map(|path| unsafe { Library::new(&path) });
        let Some(library) = opened.flatten().next() else {
            return Err(format!(
                "cuBLASLt is not installed: none of {} opens; install CUDA's cuBLAS 12 or 13, or name the folder that \
                 has it",
                NAMES.join(", ")
            ));
        };
        let library = ManuallyDrop::new(library);
        Self::read(&library)
            .map_err(|name| format!("cuBLASLt has no {name}; install cuBLAS of CUDA 12.0 or newer"))
    }
}

impl Drop for BlasLibrary {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: created in `open`, destroyed once.
            unsafe { (self.cublasLtDestroy)(self.handle) };
        }
    }
}
