//! What brings ranks on several GPUs or hosts together: NCCL, MPI, the programs that start processes.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use xdit_models::quote;

use crate::checks::finding::Finding;
use crate::run::environment::Environment;

/// The programs that start ranks, besides `xdit-cli launch`, which needs ssh for other hosts.
const LAUNCHERS: [&str; 5] = ["mpirun", "mpiexec", "srun", "torchrun", "ssh"];
/// NCCL's library.
const NCCL: &str = "libnccl.so.2";

/// Looks for NCCL, MPI and launchers.
pub(super) fn look(environment: &Environment) -> [Finding; 3] {
    let path = folders_in(environment, "PATH");
    let found: Vec<(&str, Option<PathBuf>)> =
        LAUNCHERS.map(|name| (name, first_file(&path, name))).into();
    let mpirun = found[..2].iter().find_map(|(_, path)| path.as_deref());
    [
        nccl(library(environment), version()),
        mpi(mpirun),
        launchers(&found),
    ]
}

fn folders_in(environment: &Environment, name: &str) -> Vec<PathBuf> {
    let text = environment.var(name).unwrap_or_default();
    let folders = std::env::split_paths(text);
    // An empty part means the current folder, in which a library or a program is there by chance.
    folders.filter(|folder| folder.is_absolute()).collect()
}

fn first_file(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let mut files = folders.iter().map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// NCCL's library: in the folders that variables name, in those of the system, or of a pip installation.
fn library(environment: &Environment) -> Option<PathBuf> {
    let mut folders = folders_in(environment, "XDIT_CUDA_LIB_DIR");
    folders.extend(folders_in(environment, "LD_LIBRARY_PATH"));
    for folder in [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ] {
        folders.push(folder.into());
    }
    for folder in ["/usr/local/cuda/lib64", "/usr/local/lib", "/usr/lib"] {
        folders.push(folder.into());
    }
    for python in folders_in(environment, "VIRTUAL_ENV") {
        folders.extend(pip_folders(&python.join("lib")));
    }
    folders.extend(
        ["/usr/local/lib", "/usr/lib"]
            .iter()
            .flat_map(|lib| pip_folders(Path::new(lib))),
    );
    first_file(&folders, NCCL)
}

/// Where pip puts NCCL below `lib`: `python3.12/site-packages/nvidia/nccl/lib`.
fn pip_folders(lib: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let pythons = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(b"python3")
    });
    let packages = pythons.flat_map(|python| {
        ["site-packages", "dist-packages"].map(|packages| python.path().join(packages))
    });
    packages
        .map(|packages| packages.join("nvidia/nccl/lib"))
        .collect()
}

fn shown(path: &Path) -> String {
    quote::name(&path.display().to_string())
}

/// The version of the library that a run opens.
#[cfg(all(unix, feature = "cuda"))]
fn version() -> Option<String> {
    let opened = xdit_comm::processes::nccl::NcclLibrary::open(None);
    opened.ok().map(|library| library.version())
}

#[cfg(not(all(unix, feature = "cuda")))]
fn version() -> Option<String> {
    None
}

fn nccl(library: Option<PathBuf>, version: Option<String>) -> Finding {
    let path = library.as_deref().map(shown);
    let data = json!({
        "library": library.as_ref().map(|path| path.display().to_string()),
        "version": version,
    });
    match (version, path) {
        (Some(version), None) => Finding::fine("NCCL", version, data),
        (Some(version), Some(path)) => Finding::fine("NCCL", format!("{version}, {path}"), data),
        (None, Some(path)) => Finding::lacks(
            "NCCL",
            format!("{path} is not what a run opens; only ranks on several GPUs need it"),
            "it must be 2.14 or newer, and its folder in LD_LIBRARY_PATH",
            data,
        ),
        (None, None) => Finding::lacks(
            "NCCL",
            format!("no {NCCL}; only ranks on several GPUs need it"),
            "install NCCL 2.14 or newer (pip install nvidia-nccl-cu12), with its folder in LD_LIBRARY_PATH",
            data,
        ),
    }
}

/// Whether this program can use MPI.
const WITH_MPI: bool = cfg!(feature = "mpi");

fn mpi(mpirun: Option<&Path>) -> Finding {
    let data = json!({
        "built": WITH_MPI,
        "mpirun": mpirun.map(|path| path.display().to_string()),
    });
    // Behind the name is often that of the installation, such as orterun of Open MPI.
    let named = mpirun.map(|path| {
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match target.file_name() == path.file_name() {
            true => shown(path),
            false => format!(
                "{} ({})",
                shown(path),
                shown(Path::new(target.file_name().unwrap_or_default()))
            ),
        }
    });
    match (named, WITH_MPI) {
        (Some(named), true) => Finding::fine("MPI", format!("built in; {named}"), data),
        (Some(named), false) => Finding::lacks(
            "MPI",
            format!("{named}, but this xdit-cli was built without MPI"),
            "cargo install --path xdit-cli --features mpi, for ranks on several hosts without GPUs",
            data,
        ),
        (None, true) => Finding::lacks(
            "MPI",
            "built in, but PATH has no mpirun",
            "put mpirun of the MPI that this xdit-cli was built with into PATH",
            data,
        ),
        (None, false) => Finding::lacks(
            "MPI",
            "no mpirun; only ranks on several hosts without GPUs need it",
            "install Open MPI or MPICH, and build with --features mpi",
            data,
        ),
    }
}

fn launchers(found: &[(&str, Option<PathBuf>)]) -> Finding {
    let of = |is_there: bool| -> Vec<&str> {
        let those = found.iter().filter(|(_, path)| path.is_some() == is_there);
        those.map(|(name, _)| *name).collect()
    };
    let paths = found.iter().map(|(name, path)| {
        let path = path.as_ref().map(|path| path.display().to_string());
        ((*name).to_owned(), json!(path))
    });
    let data = Value::Object(Map::from_iter(paths));
    let mut text = "xdit-cli launch".to_owned();
    for name in of(true) {
        text += &format!(", {name}");
    }
    let absent = of(false).join(", ");
    if !absent.is_empty() {
        text += &format!("; not in PATH: {absent}");
    }
    Finding::fine("launchers", text, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::finding::CheckState;

    fn environment(name: &'static str, folder: &Path) -> Environment {
        let folder = folder.display().to_string();
        Environment::with(move |asked| (asked == name).then(|| format!("relative::{folder}")))
    }

    #[test]
    fn programs_are_found_in_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("srun"), "").unwrap();
        let [_, mpi, launchers] = look(&environment("PATH", folder.path()));
        assert_eq!(mpi.state, CheckState::Lacks);
        assert_eq!(
            launchers.found,
            "xdit-cli launch, srun; not in PATH: mpirun, mpiexec, torchrun, ssh"
        );
        assert!(launchers.data["srun"].is_string() && launchers.data["ssh"].is_null());
    }

    #[test]
    fn nccl_of_pip_and_of_a_variable() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder
            .path()
            .join("lib/python3.11/site-packages/nvidia/nccl/lib");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(lib.join(NCCL), "").unwrap();
        for environment in [
            environment("VIRTUAL_ENV", folder.path()),
            environment("XDIT_CUDA_LIB_DIR", &lib),
        ] {
            let [nccl, _, _] = look(&environment);
            let found = nccl.data["library"].as_str().unwrap();
            assert_eq!(Path::new(found), lib.join(NCCL));
        }
        // A file that is no library, and none.
        for library in [Some(lib.join(NCCL)), None] {
            let finding = nccl(library, None);
            assert_eq!(finding.state, CheckState::Lacks);
            assert!(finding.cure.unwrap().contains("LD_LIBRARY_PATH"));
        }
        let finding = nccl(None, Some("2.28.9".into()));
        assert_eq!(
            (finding.state, finding.found.as_str()),
            (CheckState::Fine, "2.28.9")
        );
    }
}
