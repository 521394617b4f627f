//! What brings ranks on several GPUs or hosts together: NCCL, MPI, the programs that start processes.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use xdit_models::quote;

use crate::checks::finding::Finding;
use crate::launch::own_nccl::{self, OwnNccl, VARIABLE};
use crate::run::environment::Environment;

/// The programs that start ranks, besides `xdit-cli launch`, which needs ssh for other hosts.
const LAUNCHERS: [&str; 5] = ["mpirun", "mpiexec", "srun", "torchrun", "ssh"];

/// Looks for NCCL, MPI and launchers.
pub(super) fn look(environment: &Environment) -> [Finding; 3] {
    let path = environment.folders("PATH");
    let found: Vec<(&str, Option<PathBuf>)> =
        LAUNCHERS.map(|name| (name, first_file(&path, name))).into();
    let mpirun = found[..2].iter().find_map(|(_, path)| path.as_deref());
    [
        nccl(
            OwnNccl::open(environment).map(|library| library.name()),
            own_nccl::installed(environment),
        ),
        mpi(mpirun),
        launchers(&found),
    ]
}

fn first_file(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let mut files = folders.iter().map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

fn shown(path: &Path) -> String {
    quote::name(&path.display().to_string())
}

/// What a run opens, or else what is installed: `opened` is the version and the file, or why there is none.
fn nccl(opened: Result<(String, Option<PathBuf>), String>, installed: Option<PathBuf>) -> Finding {
    let data = |version: Option<&str>, file: Option<&Path>| {
        json!({
            "library": file.map(|file| file.display().to_string()),
            "version": version,
        })
    };
    match (opened, installed) {
        (Ok((version, file)), _) => {
            let data = data(Some(&version), file.as_deref());
            let file = file.map_or_else(String::new, |file| format!(", {}", shown(&file)));
            Finding::fine("NCCL", version + &file, data)
        }
        (Err(reason), Some(file)) => Finding::lacks(
            "NCCL",
            format!("{reason}; only ranks on several GPUs need it"),
            format!("{VARIABLE}={}, if it is 2.14 or newer", shown(&file)),
            data(None, Some(&file)),
        ),
        (Err(reason), None) => Finding::lacks(
            "NCCL",
            format!("{reason}; only ranks on several GPUs need it"),
            format!(
                "pip install nvidia-nccl-cu12, or the system's package; {VARIABLE} names the file"
            ),
            data(None, None),
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
        let lib = "lib/python3.11/site-packages/nvidia/nccl/lib";
        let file = folder.path().join(lib).join(own_nccl::FILE);
        std::fs::create_dir_all(folder.path().join(lib)).unwrap();
        std::fs::write(&file, "").unwrap();
        for environment in [
            environment("VIRTUAL_ENV", folder.path()),
            environment("XDIT_CUDA_LIB_DIR", &folder.path().join(lib)),
        ] {
            assert_eq!(own_nccl::installed(&environment).as_ref(), Some(&file));
            // It is no library.
            let [nccl, _, _] = look(&environment);
            assert_eq!(nccl.state, CheckState::Lacks);
            let cure = format!("{VARIABLE}={}", shown(&file));
            assert!(nccl.cure.unwrap().starts_with(&cure));
            assert_eq!(nccl.data["library"], json!(file));
        }
        let none = nccl(Err("NCCL is not installed".into()), None);
        assert!(none.cure.unwrap().contains(VARIABLE));
        let there = nccl(Ok(("2.28.9".into(), Some(file.clone()))), None);
        assert_eq!(there.state, CheckState::Fine);
        assert_eq!(there.found, format!("2.28.9, {}", shown(&file)));
    }
}
