//! Runs the binary as several ranks, each a process, as a launcher does.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::program::{Outcome, command, outcome};

/// A job of this number of ranks, on this host.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ranks: usize,
    pub(crate) port: u16,
    secret: String,
}

impl Job {
    /// A job with a port that is free.
    pub(crate) fn new(ranks: usize) -> Self {
        static JOBS: AtomicUsize = AtomicUsize::new(0);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let number = JOBS.fetch_add(1, Ordering::Relaxed);
        Self {
            ranks,
            port: address.port(),
            secret: format!("test {} {number}", std::process::id()),
        }
    }

    /// The command of a rank.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        rank: usize,
        folder: &Path,
        words: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = command();
        command
            .args(words)
            .current_dir(folder)
            .env("RAYON_NUM_THREADS", "1")
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", self.ranks.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("LOCAL_WORLD_SIZE", self.ranks.to_string())
            .env("MASTER_PORT", self.port.to_string())
            .env("XDIT_JOB_SECRET", &self.secret)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts all ranks with the same words.
    pub(crate) fn start<S: AsRef<OsStr> + Copy>(&self, folder: &Path, words: &[S]) -> Vec<Child> {
        let ranks = 0..self.ranks;
        let start = |rank| self.command(rank, folder, words).spawn();
        ranks.map(|rank| start(rank).expect("it starts")).collect()
    }
}

/// The outcomes of all ranks, by rank.
pub(crate) fn outcomes(children: Vec<Child>) -> Vec<Outcome> {
    let wait = |child: Child| outcome(child.wait_with_output());
    children.into_iter().map(wait).collect()
}

/// Runs these words on as many ranks, and returns what rank 0 left. All ranks have the same exit code, and the others are silent.
#[track_caller]
pub(crate) fn run_on<S: AsRef<OsStr> + Copy>(ranks: usize, folder: &Path, words: &[S]) -> Outcome {
    let mut all = outcomes(Job::new(ranks).start(folder, words));
    for (rank, other) in all.iter().enumerate().skip(1) {
        assert_eq!(other.code, all[0].code, "rank {rank}: {all:?}");
        assert_eq!(
            (other.stdout.as_str(), other.stderr.as_str()),
            ("", ""),
            "rank {rank}"
        );
    }
    all.swap_remove(0)
}
