//! Which launcher has started this process, and the place of the process among those of its job.
//!
//! It is decided once, from the environment alone. A job of one process is a run as any other.

use crate::launch::kind::{LauncherKind, OwnHost};
use crate::launch::rendezvous::Rendezvous;
use crate::launch::slurm;
use crate::launch::variables::{RankOf, Variables, half_set};
use crate::report::failure::Failure;
use crate::run::environment::Environment;

/// The place of this process in a job of several processes, as its launcher tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct JobPlace {
    /// Who has started it.
    pub launcher: LauncherKind,
    /// Its number.
    pub rank: usize,
    /// The number of processes.
    pub world_size: usize,
    /// Its number among those of its host, if the launcher says.
    pub local_rank: Option<usize>,
    /// The number of processes of its host, if the launcher says.
    pub local_world_size: Option<usize>,
    /// The name of its host.
    pub host: String,
    /// Where the processes meet.
    pub rendezvous: Rendezvous,
    /// What only the processes of this job know; empty if there is nothing.
    pub secret: String,
    /// How often the launcher has started the job again, and ranks have gone on without a lost one.
    pub restart: u64,
    /// Of ranks that go on without a lost one, the launcher's number of each. Empty before.
    pub numbers: Vec<usize>,
    /// Whether MPI can be initialised, because its launcher has started this process.
    pub by_mpi: bool,
}

/// What a launcher says of a process.
#[derive(Debug)]
struct ToldPlace {
    launcher: LauncherKind,
    place: RankOf,
    /// Where it says that, if not in RANK and WORLD_SIZE, which must not contradict it.
    names: Option<[&'static str; 2]>,
    local: (Option<usize>, Option<usize>),
    /// What distinguishes the job from others.
    job: Option<String>,
    restart: u64,
}

/// Looks for one launcher.
type Find = fn(Variables<'_>) -> Result<Option<ToldPlace>, Failure>;

/// The launchers, in the order in which they are looked for. Those that are started by others come first.
const LAUNCHERS: [Find; 8] = [
    own,
    torchrun,
    open_mpi,
    pmi,
    slurm_step,
    leader_worker_set,
    indexed_job,
    variables,
];

/// Returns the place of this process, or `None` if it is alone. `port` is that of `--rendezvous-port`.
///
/// # Errors
/// [`Failure::Usage`] for variables that are set by halves, contradict each other, or are no numbers.
pub(crate) fn detect(
    environment: &Environment,
    port: Option<u16>,
    host: &OwnHost,
) -> Result<Option<JobPlace>, Failure> {
    let read = Variables(environment);
    match read.number("XDIT_LAUNCH")? {
        Some(0) => return Ok(None),
        None | Some(1) => {}
        Some(other) => {
            return Err(Failure::usage(format!(
                "XDIT_LAUNCH={other}: expected 0 (run alone, whatever launcher there is) or 1 (set by xdit-cli launch)"
            )));
        }
    }
    for find in LAUNCHERS {
        let Some(told) = find(read)? else {
            continue;
        };
        if told.place.1 == 1 {
            return Ok(None);
        }
        if let Some([rank, size]) = told.names {
            read.agree("RANK", rank)?;
            read.agree("WORLD_SIZE", size)?;
        }
        return placed(read, told, port, host).map(Some);
    }
    Ok(None)
}

/// Returns the rank of this process as far as it can be seen without checking anything else, if it seems to be one of several.
pub(crate) fn likely_rank(environment: &Environment) -> Option<usize> {
    let read = Variables(environment);
    if read.number("XDIT_LAUNCH").ok().flatten() == Some(0) {
        return None;
    }
    // A launcher whose variables are wrong is told later.
    let found = LAUNCHERS.iter().find_map(|find| find(read).ok().flatten());
    let (rank, world_size) = found?.place;
    (world_size > 1).then_some(rank)
}

fn placed(
    read: Variables<'_>,
    told: ToldPlace,
    port: Option<u16>,
    host: &OwnHost,
) -> Result<JobPlace, Failure> {
    let (rank, world_size) = told.place;
    let (local_rank, local_world_size) = told.local;
    let launcher = told.launcher;
    let is_one_host = local_world_size == Some(world_size);
    let secret = read.text("XDIT_JOB_SECRET").map(str::to_owned);
    let by_pmix = launcher == LauncherKind::Slurm && read.text("PMIX_RANK").is_some();
    Ok(JobPlace {
        launcher,
        rank,
        world_size,
        local_rank,
        local_world_size,
        host: host.name.clone(),
        rendezvous: Rendezvous::of(read, launcher, is_one_host, port, host)?,
        secret: secret.or(told.job).unwrap_or_default(),
        restart: told.restart,
        numbers: Vec::new(),
        by_mpi: by_pmix || matches!(launcher, LauncherKind::OpenMpi | LauncherKind::Pmi),
    })
}

/// RANK, WORLD_SIZE and their likes, which several launchers set.
fn common(read: Variables<'_>, launcher: LauncherKind) -> Result<Option<ToldPlace>, Failure> {
    let place = read.pair("RANK", "WORLD_SIZE")?;
    let local = read.local("LOCAL_RANK", "LOCAL_WORLD_SIZE")?;
    Ok(place.map(|place| ToldPlace {
        launcher,
        place,
        names: None,
        local,
        job: None,
        restart: 0,
    }))
}

/// The same of a launcher that must have set them. `set` is a variable of its own.
fn certain(read: Variables<'_>, launcher: LauncherKind, set: &str) -> Result<ToldPlace, Failure> {
    let missing = || half_set(set, read.text(set).unwrap_or_default(), "RANK");
    common(read, launcher)?.ok_or_else(missing)
}

fn own(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    if read.text("XDIT_LAUNCH").is_none() {
        return Ok(None);
    }
    let told = certain(read, LauncherKind::Own, "XDIT_LAUNCH")?;
    let restart = read.number("XDIT_RESTART")?.unwrap_or_default();
    Ok(Some(ToldPlace { restart, ..told }))
}

fn torchrun(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    let Some(job) = read.text("TORCHELASTIC_RUN_ID") else {
        return Ok(None);
    };
    let told = certain(read, LauncherKind::Torchrun, "TORCHELASTIC_RUN_ID")?;
    let restart = read.number("TORCHELASTIC_RESTART_COUNT")?;
    Ok(Some(ToldPlace {
        job: Some(job.to_owned()),
        restart: restart.unwrap_or_default(),
        ..told
    }))
}

fn open_mpi(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    let [rank, size] = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"];
    let Some(place) = read.pair(rank, size)? else {
        return Ok(None);
    };
    Ok(Some(ToldPlace {
        launcher: LauncherKind::OpenMpi,
        place,
        names: Some([rank, size]),
        local: read.local("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")?,
        job: read.text("PMIX_NAMESPACE").map(str::to_owned),
        restart: 0,
    }))
}

fn pmi(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    let names = ["PMI_RANK", "PMI_SIZE"];
    let Some(place) = read.pair(names[0], names[1])? else {
        return Ok(None);
    };
    let local = read.local("MPI_LOCALRANKID", "MPI_LOCALNRANKS")?;
    // With `srun --mpi=pmi2` SLURM knows more than PMI says.
    let step = slurm_step(read)?;
    Ok(Some(ToldPlace {
        launcher: LauncherKind::Pmi,
        place,
        names: Some(names),
        local: match (&step, local) {
            (Some(step), (None, None)) => step.local,
            _ => local,
        },
        job: step.and_then(|step| step.job),
        restart: 0,
    }))
}

/// The first numbers of steps that are not of `srun`: those of batch scripts, interactive shells and others.
const SPECIAL_STEPS: u64 = 0xffff_fff0;

fn slurm_step(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    let step = read.number("SLURM_STEP_ID")?;
    // A shell of `salloc` and the script of `sbatch` have the variables of the job, but they are no tasks.
    let Some(step) = step.filter(|step| *step < SPECIAL_STEPS) else {
        return Ok(None);
    };
    let tasks = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"];
    let size = tasks.into_iter().find(|name| read.text(name).is_some());
    let size = size.unwrap_or(tasks[0]);
    let Some(place) = read.pair("SLURM_PROCID", size)? else {
        return Ok(None);
    };
    let local_rank = read
        .number("SLURM_LOCALID")?
        .map(|rank| usize::try_from(rank).unwrap_or(usize::MAX));
    let lists = ["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"];
    let list = lists.into_iter().find_map(|name| read.text(name));
    let node = read.number("SLURM_NODEID")?;
    let local_size = list.zip(node).and_then(|(list, node)| {
        let node = usize::try_from(node).ok()?;
        slurm::tasks_of_node(list, node)
    });
    let job = read.text("SLURM_JOB_ID");
    Ok(Some(ToldPlace {
        launcher: LauncherKind::Slurm,
        place,
        names: Some(["SLURM_PROCID", size]),
        local: (local_rank, local_size),
        job: job.map(|job| format!("{job}.{step}")),
        restart: read.number("SLURM_RESTART_COUNT")?.unwrap_or_default(),
    }))
}

fn leader_worker_set(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    // Who sets RANK starts several processes in a pod, which the set does not know.
    if read.text("LWS_LEADER_ADDRESS").is_none() || read.text("RANK").is_some() {
        return Ok(None);
    }
    let place = read.pair("LWS_WORKER_INDEX", "LWS_GROUP_SIZE")?;
    let missing = || {
        let leader = read.text("LWS_LEADER_ADDRESS").unwrap_or_default();
        half_set("LWS_LEADER_ADDRESS", leader, "LWS_GROUP_SIZE")
    };
    Ok(Some(ToldPlace {
        launcher: LauncherKind::LeaderWorkerSet,
        place: place.ok_or_else(missing)?,
        names: None,
        local: (Some(0), Some(1)),
        job: None,
        restart: 0,
    }))
}

fn indexed_job(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    // Without WORLD_SIZE the pods of an indexed job are independent of each other.
    let is_group = read.text("WORLD_SIZE").is_some() && read.text("RANK").is_none();
    if !is_group || read.text("JOB_COMPLETION_INDEX").is_none() {
        return Ok(None);
    }
    let place = read.pair("JOB_COMPLETION_INDEX", "WORLD_SIZE")?;
    let local = read.local("LOCAL_RANK", "LOCAL_WORLD_SIZE")?;
    Ok(place.map(|place| ToldPlace {
        launcher: LauncherKind::IndexedJob,
        place,
        names: None,
        local: match local {
            (None, None) => (Some(0), Some(1)),
            local => local,
        },
        job: None,
        restart: 0,
    }))
}

fn variables(read: Variables<'_>) -> Result<Option<ToldPlace>, Failure> {
    let told = common(read, LauncherKind::Variables)?;
    let restart = read.number("XDIT_RESTART")?.unwrap_or_default();
    Ok(told.map(|told| ToldPlace { restart, ..told }))
}

#[cfg(test)]
mod tests;
