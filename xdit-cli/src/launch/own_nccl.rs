//! NCCL in this process: which library it is, and where it is looked for.

use std::path::{Path, PathBuf};

use xdit_comm::processes::{Peers, Transport};
use xdit_kernels::Device;

#[cfg(all(unix, feature = "cuda"))]
use xdit_comm::processes::nccl::{NcclLibrary, NcclOptions, transport};

use crate::run::environment::Environment;

/// NCCL's library.
pub(crate) const FILE: &str = "libnccl.so.2";
/// The variable that names the library, or a folder that has it.
pub(crate) const VARIABLE: &str = "XDIT_NCCL_LIB";
/// Where systems have libraries.
const SYSTEM: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/local/cuda/lib64",
    "/usr/local/lib",
    "/usr/lib",
];

/// The libraries in these folders.
fn files(folders: impl Iterator<Item = PathBuf>) -> impl Iterator<Item = PathBuf> {
    let files = folders.map(|folder| folder.join(FILE));
    files.filter(|file| file.is_file())
}

/// Where pip puts NCCL below `lib`: `python3.12/site-packages/nvidia/nccl/lib`.
fn folders_of_pip(lib: PathBuf) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let pythons = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(b"python3")
    });
    let packages = pythons.flat_map(|python| {
        ["site-packages", "dist-packages"].map(|packages| python.path().join(packages))
    });
    packages.map(|packages| packages.join("nvidia/nccl/lib"))
}

/// The same of the Python environment that is active.
fn folders_of_python(environment: &Environment) -> impl Iterator<Item = PathBuf> {
    let environments = environment.folders("VIRTUAL_ENV").into_iter();
    environments.flat_map(|folder| folders_of_pip(folder.join("lib")))
}

/// A library that is installed on this machine, whether it can be used or not: in the folders that variables name, in those of the
/// system, or of a pip installation.
pub(crate) fn installed(environment: &Environment) -> Option<PathBuf> {
    let named = ["XDIT_CUDA_LIB_DIR", "LD_LIBRARY_PATH"];
    let named = named.into_iter().flat_map(|name| environment.folders(name));
    let of_system = SYSTEM.into_iter().map(PathBuf::from);
    let of_pip = ["/usr/local/lib", "/usr/lib"].map(PathBuf::from);
    let of_pip = of_pip.into_iter().flat_map(folders_of_pip);
    let folders = named.chain(of_system).chain(folders_of_python(environment));
    files(folders.chain(of_pip)).next()
}

/// NCCL, opened.
#[derive(Debug)]
pub(crate) struct OwnNccl {
    #[cfg(all(unix, feature = "cuda"))]
    library: NcclLibrary,
    /// Without the feature there is none.
    #[cfg(not(all(unix, feature = "cuda")))]
    never: std::convert::Infallible,
}

impl OwnNccl {
    /// Opens the library of `XDIT_NCCL_LIB`. Without the variable, opens that of a folder of `XDIT_CUDA_LIB_DIR`, or else that of the
    /// system, or else that of the Python environment.
    ///
    /// # Errors
    /// One line that says why none can be used.
    pub(crate) fn open(environment: &Environment) -> Result<Self, String> {
        if let Some(path) = environment.var(VARIABLE) {
            let opened = Self::open_at(Some(Path::new(path)));
            return opened.map_err(|reason| {
                let path = xdit_models::quote::shorten(path);
                format!("{VARIABLE}={path}: {reason}")
            });
        }
        let named = environment.folders("XDIT_CUDA_LIB_DIR");
        let named = files(named.into_iter()).map(Some);
        let of_python = files(folders_of_python(environment)).map(Some);
        let mut first = None;
        for place in named.chain([None]).chain(of_python) {
            match Self::open_at(place.as_deref()) {
                Ok(opened) => return Ok(opened),
                Err(reason) => first = first.or(Some(reason)),
            }
        }
        Err(first.unwrap_or_default())
    }

    #[cfg(all(unix, feature = "cuda"))]
    fn open_at(path: Option<&Path>) -> Result<Self, String> {
        let library = NcclLibrary::open(path).map_err(|error| error.to_string())?;
        Ok(Self { library })
    }

    #[cfg(not(all(unix, feature = "cuda")))]
    fn open_at(_: Option<&Path>) -> Result<Self, String> {
        Err("this xdit-cli was built without the feature cuda, and so without NCCL".into())
    }

    /// The version, such as 2.28.9, and the file.
    pub(crate) fn name(&self) -> (String, Option<PathBuf>) {
        #[cfg(all(unix, feature = "cuda"))]
        return (self.library.version(), self.library.file());
        #[cfg(not(all(unix, feature = "cuda")))]
        match self.never {}
    }

    /// Makes the transport of the whole world.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// If NCCL fails.
    pub(super) fn transport(
        &self,
        peers: &Peers,
        device: &Device,
    ) -> xdit_comm::Result<Box<dyn Transport>> {
        #[cfg(all(unix, feature = "cuda"))]
        return transport(peers, &self.library, device, NcclOptions::default());
        #[cfg(not(all(unix, feature = "cuda")))]
        {
            let _ = (peers, device);
            match self.never {}
        }
    }
}
