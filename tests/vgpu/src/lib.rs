#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, io, process};

/// The exit status of a program on which something was reported, as [`Gpu::attach`] sets it.
pub const REPORTED: i32 = 86;

/// The shared libraries as cargo builds them, and the names that programs open.
const LIBRARIES: [(&str, &str); 4] = [
    ("libvgpu_cuda.so", "libcuda.so.1"),
    ("libvgpu_cublaslt.so", "libcublasLt.so.12"),
    ("libvgpu_cublaslt.so", "libcublasLt.so.13"),
    ("libvgpu_nccl.so", "libnccl.so.2"),
];

/// How many links this process has made, so that no two have one name.
static LINKS: AtomicUsize = AtomicUsize::new(0);

/// Makes a folder with the doubles under the names of NVIDIA's libraries. A program finds them there if the folder is in
/// `LD_LIBRARY_PATH` when it starts.
///
/// cargo puts the doubles where it puts the dependencies of the running test: a package whose tests call this has `vgpu`
/// among its dependencies.
///
/// # Errors
/// The doubles are not there, or the folder cannot be made.
pub fn libraries() -> io::Result<PathBuf> {
    let test = env::current_exe()?;
    let built = test.ancestors().skip(1).take(3).find_map(|folder| {
        let candidates = [folder.join("deps"), folder.to_path_buf()];
        candidates
            .into_iter()
            .find(|f| f.join(LIBRARIES[0].0).exists())
    });
    let Some(built) = built else {
        let text = format!("{} is not beside {}", LIBRARIES[0].0, test.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    };
    let folder = built.join("vgpu-libraries");
    fs::create_dir_all(&folder)?;
    for (library, name) in LIBRARIES {
        let (target, link) = (built.join(library), folder.join(name));
        if fs::read_link(&link).is_ok_and(|old| old == target) {
            continue;
        }
        // Other tests may do the same: a link that is complete takes its place at once.
        let (process, link_number) = (process::id(), LINKS.fetch_add(1, Ordering::Relaxed));
        let new = folder.join(format!("{name}.{process}.{link_number}"));
        std::os::unix::fs::symlink(&target, &new)?;
        fs::rename(&new, &link)?;
    }
    Ok(folder)
}

/// When the operations of streams run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Within the calls that queue them.
    Eager,
    /// When a call waits for them.
    Lazy,
    /// In an order that the seed draws.
    Random(u64),
}

impl Schedule {
    /// Eager, lazy, and so many random ones.
    pub fn several(random: u64) -> Vec<Self> {
        let random = (1..=random).map(Self::Random);
        [Self::Eager, Self::Lazy]
            .into_iter()
            .chain(random)
            .collect()
    }
}

/// The virtual GPUs that a program gets.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    /// How many.
    pub devices: usize,
    /// Their compute capability: 80 is 8.0.
    pub capability: u32,
    /// When operations run.
    pub schedule: Schedule,
    /// Whether they can reach each other's memory.
    pub peers: bool,
    /// Whether the plain kernels run natively that have a native version; the others are interpreted.
    pub native: bool,
}

impl Gpu {
    /// Two devices of compute capability 8.0 that reach each other's memory and interpret all kernels.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            devices: 2,
            capability: 80,
            schedule,
            peers: true,
            native: false,
        }
    }

    /// Lets a command run on these devices, whatever `CUDA_VISIBLE_DEVICES` hides. Its exit status is [`REPORTED`] where something
    /// was found, also leaks.
    ///
    /// # Errors
    /// As [`libraries`].
    pub fn attach<'c>(&self, command: &'c mut Command) -> io::Result<&'c mut Command> {
        let (policy, seed) = match self.schedule {
            Schedule::Eager => ("eager", 0),
            Schedule::Lazy => ("lazy", 0),
            Schedule::Random(seed) => ("random", seed),
        };
        Ok(command
            .env_remove("CUDA_VISIBLE_DEVICES")
            .env("LD_LIBRARY_PATH", with_folder(&libraries()?))
            .env("VGPU_DEVICES", self.devices.to_string())
            .env("VGPU_CC", self.capability.to_string())
            .env("VGPU_PEERS", u8::from(self.peers).to_string())
            .env("VGPU_NATIVE", u8::from(self.native).to_string())
            .env("VGPU_POLICY", policy)
            .env("VGPU_SEED", seed.to_string())
            .env("VGPU_LEAKS", "1")
            .env("VGPU_EXITCODE", REPORTED.to_string()))
    }
}

/// The library path with a folder before all others.
fn with_folder(folder: &Path) -> std::ffi::OsString {
    let old = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let all = [folder.to_path_buf()]
        .into_iter()
        .chain(env::split_paths(&old));
    env::join_paths(all).unwrap_or_else(|_| folder.as_os_str().to_owned())
}
