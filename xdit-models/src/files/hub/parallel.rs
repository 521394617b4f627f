//! The weights of a pipeline, several files at the same time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::cache::{Commit, RepoCache};
use super::client::{Refusal, RemoteFile};
use super::download::{DownloadFailure, Hub};
use super::progress::HubProgress;
use crate::files::inner_path::InnerPath;
use crate::pipeline::memory_limit::refused_thread;

/// Files that arrive at the same time.
const AT_ONCE: usize = 4;

/// Files that lack, and which of them is next.
struct DownloadQueue<'a> {
    files: Vec<(&'a InnerPath, RemoteFile)>,
    next: AtomicUsize,
    /// Whether one has failed: the others end too.
    failed: AtomicBool,
}

/// How far the file of this place in the queue is.
struct Arrived {
    place: usize,
    bytes: u64,
    whole: bool,
}

impl Hub<'_> {
    /// Brings `weights` into the cache. `before` are the files of the pipeline that are there already, and all of its files.
    pub(super) fn fetch_all(
        &self,
        weights: &[&InnerPath],
        commit: &Commit,
        cached: &RepoCache,
        [before, files_total]: [usize; 2],
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<(), DownloadFailure> {
        let lacking = weights.iter().filter(|file| !cached.has(commit, file));
        let files: Vec<(&InnerPath, RemoteFile)> = lacking
            .map(|file| Ok((*file, self.metadata(file, commit)?)))
            .collect::<Result<_, DownloadFailure>>()?;
        let bytes_total = files.iter().map(|(_, remote)| remote.size);
        let bytes_total = bytes_total.fold(0, u64::saturating_add);
        let mut files_done = before + weights.len() - files.len();
        let mut arrived = vec![0; files.len()];
        let queue = DownloadQueue {
            files,
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            let mut workers = Vec::new();
            for _ in 0..AT_ONCE.min(queue.files.len()) {
                let (sender, queue) = (sender.clone(), &queue);
                let work = move || self.fetch_from(queue, commit, cached, &sender);
                match std::thread::Builder::new().spawn_scoped(scope, work) {
                    Ok(worker) => workers.push(worker),
                    // Fewer at a time will do.
                    Err(_) if !workers.is_empty() => break,
                    Err(error) => return Err(refused_thread("a download", &error).into()),
                }
            }
            drop(sender);
            for Arrived {
                place,
                bytes,
                whole,
            } in receiver
            {
                arrived[place] = bytes;
                files_done += usize::from(whole);
                let (file, remote) = &queue.files[place];
                progress(HubProgress {
                    file: file.as_str(),
                    done: bytes,
                    total: remote.size,
                    files_done,
                    files_total,
                    bytes_done: arrived.iter().sum(),
                    bytes_total,
                });
            }
            // The first that failed ended the others.
            let ends = workers.into_iter().map(|worker| match worker.join() {
                Ok(end) => end,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            let mut stopped = Ok(());
            for end in ends {
                match end {
                    Err(FetchEnd::Failed(failure)) => return Err(failure),
                    Err(FetchEnd::Stopped(failure)) => stopped = Err(failure),
                    Ok(()) => {}
                }
            }
            stopped
        })
    }

    /// Brings one file after another.
    fn fetch_from(
        &self,
        queue: &DownloadQueue<'_>,
        commit: &Commit,
        cached: &RepoCache,
        told: &Sender<Arrived>,
    ) -> Result<(), FetchEnd> {
        loop {
            let place = queue.next.fetch_add(1, Ordering::Relaxed);
            let Some((file, remote)) = queue.files.get(place) else {
                return Ok(());
            };
            let mut was_stopped = false;
            let mut report = |bytes| {
                let whole = false;
                // Nobody listens any more if the caller's `progress` panics.
                let sent = told.send(Arrived {
                    place,
                    bytes,
                    whole,
                });
                was_stopped = sent.is_err() || queue.failed.load(Ordering::Relaxed);
                match was_stopped {
                    true => Err(Refusal::Stopped),
                    false => Ok(()),
                }
            };
            let fetched = self.fetch_known(file, remote, commit, cached, &mut report);
            if let Err(failure) = fetched {
                queue.failed.store(true, Ordering::Relaxed);
                return Err(match was_stopped {
                    true => FetchEnd::Stopped(failure),
                    false => FetchEnd::Failed(failure),
                });
            }
            let (bytes, whole) = (remote.size, true);
            let sent = told.send(Arrived {
                place,
                bytes,
                whole,
            });
            if sent.is_err() {
                return Ok(());
            }
        }
    }
}

/// Why a worker brings no more files.
enum FetchEnd {
    /// One failed.
    Failed(DownloadFailure),
    /// Another worker's failed.
    Stopped(DownloadFailure),
}
