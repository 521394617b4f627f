//! The environment. It is read once, and no other code of the workspace reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The variables of this program, by name. Unset and empty are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment(BTreeMap<&'static str, String>);

/// All variables that are read, except those of launchers.
const NAMES: [&str; 36] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_HUB_ETAG_TIMEOUT",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "NO_COLOR",
    "OMP_NUM_THREADS",
    "PATH",
    "RANK",
    "RAYON_NUM_THREADS",
    "RUST_LOG",
    "TERM",
    "USERPROFILE",
    "VIRTUAL_ENV",
    "WORLD_SIZE",
    "XDG_CACHE_HOME",
    "XDIT_CONTROL",
    "XDIT_CUDA_LIB_DIR",
    "XDIT_JOB_SECRET",
    "XDIT_LAUNCH",
    "XDIT_LOGGING_LEVEL",
    "XDIT_NCCL_LIB",
    "XDIT_RENDEZVOUS_PORT",
    "XDIT_REPORT",
    "XDIT_RESTART",
    "XDIT_SSH",
];

/// The variables that launchers set for the processes that they start. `docs/processes.md` names them.
const LAUNCHERS: [&str; 29] = [
    "JOB_COMPLETION_INDEX",
    "LWS_GROUP_SIZE",
    "LWS_LEADER_ADDRESS",
    "LWS_WORKER_INDEX",
    "MPI_LOCALNRANKS",
    "MPI_LOCALRANKID",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMIX_NAMESPACE",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURM_STEP_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_USE_AGENT_STORE",
];

/// The variables with a number of threads. The first one wins.
const THREADS: [&str; 2] = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"];

impl Environment {
    /// Reads the environment of the process. Bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn read() -> Self {
        Self::with(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    }

    /// Reads the environment with `lookup`.
    pub(crate) fn with(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set =
            |name: &&'static str| Some((*name, lookup(name).filter(|value| !value.is_empty())?));
        Self(NAMES.iter().chain(&LAUNCHERS).filter_map(set).collect())
    }

    /// Returns the value of `name`, one of [`NAMES`] or [`LAUNCHERS`].
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        let is_known = NAMES.contains(&name) || LAUNCHERS.contains(&name);
        debug_assert!(is_known, "{name} is not in the lists");
        self.0.get(name).map(String::as_str)
    }

    /// Returns the folders in `name`. An empty part means the current folder, in which a library or a program is there by chance, so
    /// only absolute paths count.
    pub(crate) fn folders(&self, name: &str) -> Vec<PathBuf> {
        let folders = std::env::split_paths(self.var(name).unwrap_or_default());
        folders.filter(|folder| folder.is_absolute()).collect()
    }

    /// Returns whether `name` is set to 1, true, yes or on, as huggingface_hub reads it.
    #[cfg(feature = "hub")]
    pub(crate) fn is_on(&self, name: &str) -> bool {
        let yes = ["1", "true", "yes", "on"];
        self.var(name)
            .is_some_and(|value| yes.contains(&value.to_lowercase().as_str()))
    }

    /// Returns the number of compute threads: `RAYON_NUM_THREADS`, or else `OMP_NUM_THREADS` (the first one of a list). Zero
    /// and values that are no number from 1 to 65,535 count as unset.
    pub(crate) fn threads(&self) -> Option<usize> {
        THREADS.iter().find_map(|name| self.threads_in(name)?.ok())
    }

    /// Returns one line for each invalid variable. Zero means unset, as in rayon.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let complaint = |name: &&'static str| {
            let text = self.threads_in(name)?.err()?;
            Some(format!(
                "warning: {name}={} is not used: expected a number from 1 to {}",
                xdit_models::quote::shorten(text),
                u16::MAX
            ))
        };
        THREADS.iter().filter_map(complaint).collect()
    }

    /// Returns the number of threads in `name`, or the text if it is not a number. `None` if it is unset or zero.
    fn threads_in(&self, name: &str) -> Option<Result<usize, &str>> {
        let text = self.var(name)?;
        match text
            .split(',')
            .next()
            .unwrap_or_default()
            .trim()
            .parse::<u16>()
        {
            Ok(0) => None,
            Ok(threads) => Some(Ok(threads.into())),
            Err(_) => Some(Err(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::with(|name| {
            let pair = pairs.iter().find(|(key, _)| *key == name)?;
            Some(pair.1.to_owned())
        })
    }

    #[test]
    fn threads() {
        assert_eq!(environment(&[]).threads(), None);
        assert_eq!(
            environment(&[("OMP_NUM_THREADS", "4,2")]).threads(),
            Some(4)
        );
        let both = [("OMP_NUM_THREADS", "4"), ("RAYON_NUM_THREADS", "3")];
        assert_eq!(environment(&both).threads(), Some(3));
        let odd = [("OMP_NUM_THREADS", "4"), ("RAYON_NUM_THREADS", "0")];
        assert_eq!(environment(&odd).threads(), Some(4));
        for odd in [
            "many",
            "-1",
            "NaN",
            "1.5",
            "99999999999999999999",
            "65536",
            ",",
        ] {
            let environment = environment(&[("OMP_NUM_THREADS", odd)]);
            assert_eq!(environment.threads(), None, "{odd}");
            let complaint = format!(
                "warning: OMP_NUM_THREADS={odd} is not used: expected a number from 1 to 65535"
            );
            assert_eq!(environment.complaints(), [complaint]);
        }
        let fine = [("OMP_NUM_THREADS", "4,2"), ("RAYON_NUM_THREADS", "0")];
        assert!(environment(&fine).complaints().is_empty());
    }

    #[test]
    fn the_help_names_every_variable() {
        let rows = crate::args::notes::ENVIRONMENT.iter();
        let told: Vec<&str> = rows.flat_map(|(names, _)| names.split(", ")).collect();
        // Where home folders, programs and libraries are, is no matter of this program.
        let of_system = [
            "HOME",
            "LD_LIBRARY_PATH",
            "PATH",
            "USERPROFILE",
            "VIRTUAL_ENV",
        ];
        for name in NAMES {
            let is_told = told.contains(&name) || of_system.contains(&name);
            assert!(is_told, "{name}");
        }
        assert!(told.iter().all(|name| NAMES.contains(name)), "{told:?}");
    }

    #[test]
    fn the_page_of_processes_names_every_variable_of_launchers() {
        let page = include_str!("../../../docs/processes.md");
        for name in LAUNCHERS {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[cfg(feature = "hub")]
    #[test]
    fn yes_and_no() {
        for yes in ["1", "TRUE", "yes", "On"] {
            assert!(
                environment(&[("HF_HUB_OFFLINE", yes)]).is_on("HF_HUB_OFFLINE"),
                "{yes}"
            );
        }
        for no in ["", "0", "no"] {
            assert!(
                !environment(&[("HF_HUB_OFFLINE", no)]).is_on("HF_HUB_OFFLINE"),
                "{no}"
            );
        }
    }
}
