use super::*;
use LauncherKind::{
    IndexedJob, LeaderWorkerSet, OpenMpi, Own, Pmi, Slurm, Torchrun, Variables as Plain,
};

fn environment(text: &str) -> Environment {
    Environment::with(|name| {
        let mut pairs = text.split_whitespace().filter_map(|it| it.split_once('='));
        let pair = pairs.find(|(key, _)| *key == name);
        pair.map(|(_, value)| value.to_owned())
    })
}

fn found(text: &str, port: Option<u16>) -> Result<Option<JobPlace>, String> {
    let host = OwnHost {
        name: "here".to_owned(),
        parent: 77,
    };
    let found = detect(&environment(text), port, &host);
    found.map_err(|failure| {
        assert_eq!(failure.exit_code(), 2, "{failure}");
        failure.to_string()
    })
}

fn place(text: &str) -> JobPlace {
    let found = found(text, None).unwrap_or_else(|error| panic!("{text}: {error}"));
    found.unwrap_or_else(|| panic!("{text}: alone"))
}

fn refused(text: &str) -> String {
    match found(text, None) {
        Err(error) => error,
        Ok(place) => panic!("{text}: {place:?}"),
    }
}

const TORCH: &str = "TORCHELASTIC_RUN_ID=job7 RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=node1 \
                     MASTER_PORT=29400 TORCHELASTIC_RESTART_COUNT=2";
const OMPI: &str = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1 \
                    OMPI_COMM_WORLD_LOCAL_SIZE=4 PMIX_NAMESPACE=prterun-here-1234@1";
const SRUN: &str = "SLURM_JOB_ID=123456 SLURM_STEP_ID=0 SLURM_PROCID=6 SLURM_LOCALID=2 SLURM_NODEID=1 \
                    SLURM_STEP_NUM_TASKS=7 SLURM_NTASKS=7 SLURM_STEP_NODELIST=gnode[10,20,25-27] \
                    SLURM_STEP_TASKS_PER_NODE=4,3";

#[test]
fn without_a_launcher_a_process_is_alone() {
    // A shell of salloc, the script of sbatch, pods of a job that are independent, a GPU server's settings.
    for text in [
        "",
        "LOCAL_RANK=0",
        "MASTER_ADDR=a MASTER_PORT=1",
        "SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_JOB_NODELIST=a[1-4] SLURM_TASKS_PER_NODE=1(x4)",
        "SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=4294967291",
        "SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=4294967290",
        "JOB_COMPLETION_INDEX=3",
        "PMIX_NAMESPACE=a PMIX_RANK=0",
    ] {
        assert_eq!(found(text, None), Ok(None), "{text}");
    }
}

#[test]
fn a_job_of_one_process_is_no_group() {
    for text in [
        "RANK=0 WORLD_SIZE=1",
        "TORCHELASTIC_RUN_ID=a RANK=0 WORLD_SIZE=1",
        "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1",
        "PMI_RANK=0 PMI_SIZE=1",
        "SLURM_JOB_ID=1 SLURM_STEP_ID=3 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1",
        "LWS_LEADER_ADDRESS=a LWS_WORKER_INDEX=0 LWS_GROUP_SIZE=1",
        "JOB_COMPLETION_INDEX=0 WORLD_SIZE=1",
        "XDIT_LAUNCH=1 RANK=0 WORLD_SIZE=1",
    ] {
        assert_eq!(found(text, None), Ok(None), "{text}");
    }
}

#[test]
fn torchrun_and_the_port_of_its_agent() {
    let first = place(TORCH);
    let expected = JobPlace {
        launcher: Torchrun,
        rank: 5,
        world_size: 8,
        local_rank: Some(1),
        local_world_size: Some(4),
        host: "here".to_owned(),
        rendezvous: first.rendezvous.clone(),
        secret: "job7".to_owned(),
        restart: 2,
        numbers: Vec::new(),
        by_mpi: false,
    };
    assert_eq!(first, expected);
    assert_eq!(first.rendezvous.to_string(), "node1:29400");
    let shared = |value| place(&format!("{TORCH} TORCHELASTIC_USE_AGENT_STORE={value}")).rendezvous;
    let taken = shared("True");
    assert_eq!(taken.to_string(), "node1:29401");
    assert!(
        taken.why.contains("after MASTER_PORT 29400"),
        "{}",
        taken.why
    );
    assert_eq!(shared("False").port, 29400);
    // A port that the user has chosen is never moved.
    let text = format!("{TORCH} TORCHELASTIC_USE_AGENT_STORE=True");
    let chosen = |text: &str, flag| found(text, flag).unwrap().unwrap().rendezvous.port;
    assert_eq!(chosen(&text, Some(4000)), 4000);
    let text = format!("{text} XDIT_RENDEZVOUS_PORT=4001");
    assert_eq!(chosen(&text, None), 4001);
    assert_eq!(chosen(&text, Some(4000)), 4000);
    let last = "TORCHELASTIC_RUN_ID=a RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=65535 TORCHELASTIC_USE_AGENT_STORE=True";
    assert!(refused(last).contains("--rendezvous-port"));
}

#[test]
fn all_ranks_on_one_host_meet_on_its_loopback() {
    for text in [
        "RANK=1 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4",
        "RANK=1 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=node1.example.org",
        OMPI,
        "PMI_RANK=1 PMI_SIZE=4 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=4",
        "SLURM_JOB_ID=9 SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_NODEID=0 SLURM_TASKS_PER_NODE=2",
    ] {
        let host = place(text).rendezvous.host;
        assert_eq!(host.as_deref(), Some("127.0.0.1"), "{text}");
    }
}

#[test]
fn open_mpi() {
    let place_of = place(OMPI);
    assert_eq!(
        (place_of.launcher, place_of.rank, place_of.world_size),
        (OpenMpi, 1, 4)
    );
    assert_eq!(
        (place_of.local_rank, place_of.local_world_size),
        (Some(1), Some(4))
    );
    assert!(place_of.by_mpi);
    assert_eq!(place_of.secret, "prterun-here-1234@1");
    let port = place_of.rendezvous.port;
    assert!((20_000..40_000).contains(&port), "{port}");
    // Where MPI can tell another port, rank 0 takes a free one; never where somebody has asked for one.
    assert!(place_of.rendezvous.is_free_choice);
    let asked = format!("{OMPI} MASTER_PORT=7");
    assert!(!place(&asked).rendezvous.is_free_choice);
    // Another job has another port, and all ranks of a job have one.
    let other = OMPI.replace("1234", "1235");
    assert_ne!(place(&other).rendezvous.port, port);
    let last = OMPI.replace("_RANK=1", "_RANK=3");
    assert_eq!(place(&last).rendezvous.port, port);
    // On several hosts only MPI knows where rank 0 is, unless the user says it.
    let two = OMPI.replace("LOCAL_SIZE=4", "LOCAL_SIZE=2");
    assert_eq!(place(&two).rendezvous.host, None);
    let told = format!("{two} MASTER_ADDR=fd00::1 MASTER_PORT=7");
    assert_eq!(place(&told).rendezvous.to_string(), "[fd00::1]:7");
    // Before PMIx had a namespace: the process that all have in common.
    let old = OMPI.replace("PMIX_NAMESPACE", "X");
    assert_eq!(place(&old).rendezvous.port, 20_077);
}

#[test]
fn mpich_intel_mpi_and_srun_with_pmi2() {
    let hydra = place("PMI_RANK=2 PMI_SIZE=3 MPI_LOCALRANKID=2 MPI_LOCALNRANKS=3");
    assert_eq!((hydra.launcher, hydra.rank, hydra.world_size), (Pmi, 2, 3));
    assert!(hydra.by_mpi);
    assert_eq!(hydra.rendezvous.to_string(), "127.0.0.1:20077");
    assert_eq!(hydra.secret, "");
    let pmi2 = place(&format!("{SRUN} PMI_RANK=6 PMI_SIZE=7"));
    assert_eq!(pmi2.launcher, Pmi);
    assert_eq!((pmi2.local_rank, pmi2.local_world_size), (Some(2), Some(3)));
    assert_eq!(pmi2.secret, "123456.0");
    assert_eq!(pmi2.rendezvous, place(SRUN).rendezvous);
}

#[test]
fn srun() {
    let step = place(SRUN);
    assert_eq!((step.launcher, step.rank, step.world_size), (Slurm, 6, 7));
    assert_eq!((step.local_rank, step.local_world_size), (Some(2), Some(3)));
    assert_eq!(step.rendezvous.to_string(), "gnode10:23456");
    assert_eq!(step.secret, "123456.0");
    assert!(!step.by_mpi);
    assert!(place(&format!("{SRUN} PMIX_RANK=6")).by_mpi);
    let again = place(&format!("{SRUN} SLURM_RESTART_COUNT=1"));
    assert_eq!(again.restart, 1);
    // Steps of a job that run at the same time.
    let second = place(&SRUN.replace("STEP_ID=0", "STEP_ID=1"));
    assert_ne!(second.rendezvous.port, step.rendezvous.port);
    // The names that older versions have.
    let old = "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_NODEID=1 SLURM_NTASKS=2 \
               SLURM_JOB_NODELIST=a[01-02] SLURM_TASKS_PER_NODE=1(x2)";
    let old = place(old);
    assert_eq!(old.local_world_size, Some(1));
    assert_eq!(old.rendezvous.to_string(), "a01:20007");
    // A list that is none is named; numbers of tasks only spare a look at the hosts.
    let odd = SRUN.replace("gnode[10,20,25-27]", "gnode[");
    assert!(refused(&odd).contains("SLURM_STEP_NODELIST=gnode["));
    let odd = SRUN.replace("=4,3", "=?");
    assert_eq!(place(&odd).local_world_size, None);
}

#[test]
fn kubernetes() {
    let group = place("LWS_LEADER_ADDRESS=a-0.svc LWS_GROUP_SIZE=4 LWS_WORKER_INDEX=2");
    assert_eq!(
        (group.launcher, group.rank, group.world_size),
        (LeaderWorkerSet, 2, 4)
    );
    assert_eq!(
        (group.local_rank, group.local_world_size),
        (Some(0), Some(1))
    );
    assert_eq!(group.rendezvous.to_string(), "a-0.svc:29500");
    let job = place(
        "JOB_COMPLETION_INDEX=1 WORLD_SIZE=2 MASTER_ADDR=a-0.a MASTER_PORT=2345 XDIT_JOB_SECRET=s",
    );
    assert_eq!((job.launcher, job.rank, job.world_size), (IndexedJob, 1, 2));
    assert_eq!(job.rendezvous.to_string(), "a-0.a:2345");
    assert_eq!(job.secret, "s");
    // Several processes in a pod have ranks of their own.
    let several =
        "LWS_LEADER_ADDRESS=a-0.svc LWS_GROUP_SIZE=2 LWS_WORKER_INDEX=1 RANK=5 WORLD_SIZE=8";
    let several = place(several);
    assert_eq!((several.launcher, several.rank), (Plain, 5));
    assert_eq!(several.rendezvous.to_string(), "a-0.svc:29500");
    assert_eq!(
        place("JOB_COMPLETION_INDEX=1 RANK=5 WORLD_SIZE=8 MASTER_ADDR=a").launcher,
        Plain
    );
}

#[test]
fn plain_variables_and_the_own_launcher() {
    let plain = place("RANK=3 WORLD_SIZE=4 MASTER_ADDR=node1 MASTER_PORT=2345");
    assert_eq!(
        (plain.launcher, plain.rank, plain.world_size),
        (Plain, 3, 4)
    );
    assert_eq!((plain.local_rank, plain.local_world_size), (None, None));
    assert_eq!(plain.rendezvous.to_string(), "node1:2345");
    let own = place(
        "XDIT_LAUNCH=1 RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=5 XDIT_JOB_SECRET=z XDIT_RESTART=3",
    );
    assert_eq!(
        (own.launcher, own.secret.as_str(), own.restart),
        (Own, "z", 3)
    );
    // The user's word is last.
    let off = format!("XDIT_LAUNCH=0 {OMPI}");
    assert_eq!(found(&off, None), Ok(None));
}

#[test]
fn the_innermost_launcher_counts() {
    // torchrun under srun, mpirun within the allocation of a job, launch within a task.
    let under = |inner: &str| place(&format!("{SRUN} {inner}")).launcher;
    assert_eq!(under(TORCH), Torchrun);
    assert_eq!(under(OMPI), OpenMpi);
    assert_eq!(
        under("XDIT_LAUNCH=1 RANK=0 WORLD_SIZE=2 MASTER_ADDR=a"),
        Own
    );
    // Whoever exports what a launcher says anyway changes nothing.
    let exported = format!("{SRUN} RANK=6 WORLD_SIZE=7");
    assert_eq!(place(&exported).launcher, Slurm);
}

#[test]
fn the_rank_is_seen_even_where_something_else_is_wrong() {
    for (text, rank) in [
        (TORCH, Some(5)),
        (OMPI, Some(1)),
        (SRUN, Some(6)),
        ("RANK=1 WORLD_SIZE=2 MASTER_PORT=x", Some(1)),
        ("JOB_COMPLETION_INDEX=1 WORLD_SIZE=2", Some(1)),
        (
            "LWS_LEADER_ADDRESS=a LWS_GROUP_SIZE=4 LWS_WORKER_INDEX=2",
            Some(2),
        ),
        // A user who sets one variable gets an answer.
        ("RANK=1", None),
        ("RANK=0 WORLD_SIZE=1", None),
        ("RANK=1 WORLD_SIZE=2 XDIT_LAUNCH=0", None),
        (
            "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_STEP_ID=4294967291",
            None,
        ),
        ("", None),
    ] {
        assert_eq!(likely_rank(&environment(text)), rank, "{text}");
    }
}

#[test]
fn what_cannot_be_is_one_line_that_names_the_variables() {
    for (text, told) in [
        ("RANK=0", &["RANK=0", "WORLD_SIZE"][..]),
        ("WORLD_SIZE=2", &["WORLD_SIZE=2", "RANK is not"]),
        ("RANK=2 WORLD_SIZE=2", &["RANK=2", "WORLD_SIZE=2", "from 0"]),
        ("RANK=-1 WORLD_SIZE=2", &["RANK=-1", "whole number"]),
        ("RANK=a WORLD_SIZE=2", &["RANK=a"]),
        (
            "RANK=0 WORLD_SIZE=99999999999999999999999",
            &["WORLD_SIZE=9"],
        ),
        ("RANK=0 WORLD_SIZE=0", &["WORLD_SIZE=0"]),
        ("RANK=0 WORLD_SIZE=2", &["MASTER_ADDR is not set"]),
        (
            "RANK=0 WORLD_SIZE=2 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2",
            &["LOCAL_RANK=2"],
        ),
        (
            "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=0",
            &["MASTER_PORT=0"],
        ),
        (
            "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=70000",
            &["MASTER_PORT=70000"],
        ),
        (
            "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a XDIT_RENDEZVOUS_PORT=x",
            &["XDIT_RENDEZVOUS_PORT=x"],
        ),
        ("OMPI_COMM_WORLD_RANK=0", &["OMPI_COMM_WORLD_SIZE"]),
        ("PMI_SIZE=2", &["PMI_RANK"]),
        ("TORCHELASTIC_RUN_ID=a", &["TORCHELASTIC_RUN_ID=a", "RANK"]),
        ("XDIT_LAUNCH=1", &["XDIT_LAUNCH=1", "RANK"]),
        ("XDIT_LAUNCH=2", &["XDIT_LAUNCH=2"]),
        ("XDIT_LAUNCH=yes", &["XDIT_LAUNCH=yes"]),
        (
            "LWS_LEADER_ADDRESS=a",
            &["LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE"],
        ),
        (
            "LWS_LEADER_ADDRESS=a LWS_GROUP_SIZE=2",
            &["LWS_WORKER_INDEX"],
        ),
        (
            "JOB_COMPLETION_INDEX=0 WORLD_SIZE=2",
            &["MASTER_ADDR is not set"],
        ),
        ("SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2", &["SLURM_PROCID"]),
        ("SLURM_STEP_ID=x", &["SLURM_STEP_ID=x"]),
    ] {
        let error = refused(text);
        for part in told {
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
    for (outer, common) in [
        (OMPI, "RANK=0"),
        (OMPI, "WORLD_SIZE=5"),
        (SRUN, "RANK=1 WORLD_SIZE=7"),
        ("PMI_RANK=1 PMI_SIZE=2", "RANK=0"),
    ] {
        let error = refused(&format!("{outer} {common}"));
        assert!(
            error.contains("contradicts") && error.contains("XDIT_LAUNCH=0"),
            "{error}"
        );
    }
}
