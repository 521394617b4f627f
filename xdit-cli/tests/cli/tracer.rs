//! Loses a process at a chosen moment. The product has no hook for that: a debugger stops a process when it writes a line.
#![cfg(target_os = "linux")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::launch::{signal, wait_until};

/// Something to do when this text is in what a process is about to write to its standard error, before that is written.
pub(crate) type Mark = (String, Box<dyn FnOnce() + Send>);

/// Waits for one mark after another.
#[derive(Debug)]
pub(crate) struct Tracer {
    done: Receiver<bool>,
}

impl Tracer {
    /// Begins to look at the process. No thread of it writes the mark unseen from then on.
    fn start(pid: u32, marks: Vec<Mark>) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (say, done) = mpsc::channel();
        // What it traces goes on when the thread ends.
        std::thread::spawn(move || {
            let pid = i32::try_from(pid).expect("a process");
            seize_all(pid);
            ready.send(()).ok();
            say.send(watch(pid, marks)).ok();
        });
        is_ready.recv().expect("the process is traced");
        Self { done }
    }

    /// Waits until all marks have come. Returns whether they have: not, if the process ended before.
    pub(crate) fn happened(&self) -> bool {
        let limit = Duration::from_secs(60);
        self.done
            .recv_timeout(limit)
            .expect("the mark, or an end of the process")
    }
}

/// Begins to look at ranks, of which the last is none. It stands still meanwhile: without it the others do not begin.
pub(crate) fn trace(
    pids: &[u32],
    marks: impl IntoIterator<Item = (usize, Vec<Mark>)>,
) -> Vec<Tracer> {
    let last = *pids.last().expect("ranks");
    signal("-STOP", last);
    let tracers = marks
        .into_iter()
        .map(|(rank, marks)| Tracer::start(pids[rank], marks))
        .collect();
    signal("-CONT", last);
    tracers
}

const NONE: *mut libc::c_void = std::ptr::null_mut();

/// Attaches to all threads of a process, and to those that they start.
fn seize_all(pid: i32) {
    let mut known = HashSet::new();
    loop {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let tids = tasks.filter_map(|task| task.file_name().to_str()?.parse::<i32>().ok());
        let new: Vec<i32> = tids.filter(|tid| known.insert(*tid)).collect();
        if new.is_empty() {
            assert!(!known.is_empty(), "there is no process {pid}");
            return;
        }
        for tid in new {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
            // SAFETY: the request reads and writes no memory of this process.
            let seized = unsafe {
                libc::ptrace(
                    libc::PTRACE_SEIZE,
                    tid,
                    NONE,
                    options as usize as *mut libc::c_void,
                )
            };
            // Another thread may have ended, or be traced already: one that is has started it since.
            let error = std::io::Error::last_os_error();
            assert!(
                seized == 0 || tid != pid,
                "process {pid} cannot be traced: {error}"
            );
            // SAFETY: likewise.
            unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, tid, NONE, NONE) };
        }
    }
}

/// Runs the process from one call of the system to the next, until its threads have written all marks.
fn watch(pid: i32, marks: Vec<Mark>) -> bool {
    let mut marks = marks.into_iter().peekable();
    let memory = File::open(format!("/proc/{pid}/mem")).expect("the memory of a traced process");
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable and lives longer than the call. It waits for what this thread traces, and nothing else.
        let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if tid < 0 {
            return false;
        }
        if !libc::WIFSTOPPED(status) {
            if tid == pid {
                return false;
            }
            continue;
        }
        let is_event = status >> 16 != 0;
        let signal = match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                let text = written(tid, &memory).unwrap_or_default();
                if let Some((_, act)) = marks.next_if(|(mark, _)| contains(&text, mark.as_bytes()))
                {
                    act();
                }
                if marks.peek().is_none() {
                    return true;
                }
                0
            }
            _ if is_event => 0,
            signal => signal,
        };
        // SAFETY: the request reads and writes no memory of this process.
        unsafe {
            libc::ptrace(
                libc::PTRACE_SYSCALL,
                tid,
                NONE,
                signal as usize as *mut libc::c_void,
            )
        };
    }
}

/// What the stopped thread is about to write to its standard error.
fn written(tid: i32, memory: &File) -> Option<Vec<u8>> {
    // SAFETY: zeroes are a value of this struct of numbers.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: the request writes at most `size` bytes to `info`.
    let known = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            tid,
            size as *mut libc::c_void,
            &raw mut info,
        )
    };
    if known <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: at the entry of a call, this is what the request has filled in.
    let call = unsafe { info.u.entry };
    if call.nr != u64::try_from(libc::SYS_write).ok()? || call.args[0] != 2 {
        return None;
    }
    let mut text = vec![0; usize::try_from(call.args[2]).ok()?.min(1 << 16)];
    memory.read_exact_at(&mut text, call.args[1]).ok()?;
    Some(text)
}

fn contains(text: &[u8], mark: &[u8]) -> bool {
    text.windows(mark.len()).any(|part| part == mark)
}

/// The processes that `launch` has started, by rank.
pub(crate) fn ranks(launch: u32, count: usize) -> Vec<u32> {
    let find = || {
        let mut found: Vec<(usize, u32)> = crate::launch_runs::children(launch)
            .into_iter()
            .filter_map(|pid| Some((rank_of(pid)?, pid)))
            .collect();
        found.sort_unstable();
        found
    };
    wait_until("all ranks", || find().len() == count);
    find().into_iter().map(|(_, pid)| pid).collect()
}

fn rank_of(pid: u32) -> Option<usize> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let rank = variables.find_map(|variable| variable.strip_prefix(b"RANK="))?;
    std::str::from_utf8(rank).ok()?.parse().ok()
}
