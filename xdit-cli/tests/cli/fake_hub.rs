//! A hub on 127.0.0.1 that serves the demo.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::program::{command, demo};

/// A hub whose every repository is the demo.
pub(crate) struct FakeHub {
    pub(crate) address: String,
    served: Arc<Served>,
}

struct Served {
    commit: &'static str,
    files: Vec<(String, Vec<u8>)>,
    status: AtomicU16,
    /// The end of the names that are not sent.
    refused: Mutex<Option<String>>,
    slow: AtomicBool,
    furthest: AtomicUsize,
    sent: AtomicUsize,
}

impl FakeHub {
    /// The demo's files as `commit`, each with `more` at its end.
    pub(crate) fn start(commit: &'static str, more: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut files = Vec::new();
        read(&demo(), "", &mut files);
        for (name, bytes) in &mut files {
            if name.ends_with(".json") {
                bytes.extend_from_slice(more.as_bytes());
            }
        }
        let served = Arc::new(Served {
            commit,
            files,
            status: AtomicU16::new(200),
            refused: Mutex::new(None),
            slow: AtomicBool::new(false),
            furthest: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
        });
        let hub = Self {
            address,
            served: Arc::clone(&served),
        };
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || served.serve(stream));
            }
        });
        hub
    }

    /// Answers everything with this status from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.served.status.store(status, Ordering::SeqCst);
    }

    /// Answers requests of the files whose names end so with 404 from now on.
    pub(crate) fn refuse(&self, end: &str) {
        *self.served.refused.lock().unwrap() = Some(end.to_owned());
    }

    /// Sends some 600 kB a second, or as fast as it can.
    pub(crate) fn slow(&self, slow: bool) {
        self.served.slow.store(slow, Ordering::SeqCst);
    }

    /// The largest place in a file from which on it was asked for.
    pub(crate) fn furthest(&self) -> usize {
        self.served.furthest.load(Ordering::SeqCst)
    }

    /// Bytes of files that were sent.
    pub(crate) fn sent(&self) -> usize {
        self.served.sent.load(Ordering::SeqCst)
    }

    /// The program that speaks to this hub and keeps its cache in `home`.
    pub(crate) fn command(&self, home: &Path) -> Command {
        let mut command = command();
        command
            .env("HF_HUB_OFFLINE", "0")
            .env("HF_ENDPOINT", format!("http://{}", self.address))
            .env("HF_HOME", home)
            .current_dir(home);
        command
    }
}

fn read(folder: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => read(&entry.path(), &format!("{name}/"), files),
            false => files.push((name, std::fs::read(entry.path()).unwrap())),
        }
    }
}

impl Served {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut first, mut last) = (0, usize::MAX);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if let Some((from, to)) = line
                .strip_prefix("range: bytes=")
                .and_then(|it| it.split_once('-'))
            {
                (first, last) = (from.parse().unwrap(), to.parse().unwrap_or(usize::MAX));
            }
            if line.is_empty() {
                break;
            }
        }
        let refused = self.refused.lock().unwrap().clone();
        let status = match refused.is_some_and(|end| path.ends_with(&end)) {
            true => 404,
            false => self.status.load(Ordering::SeqCst),
        };
        let (status, headers, body) = if status != 200 {
            (status, String::new(), Vec::new())
        } else if path.starts_with("/api/models/") {
            let names: Vec<_> = self
                .files
                .iter()
                .map(|(name, _)| serde_json::json!({"rfilename": name}))
                .collect();
            let listing = serde_json::json!({"sha": self.commit, "siblings": names});
            (200, String::new(), listing.to_string().into_bytes())
        } else {
            let name = path
                .split_once(&format!("/resolve/{}/", self.commit))
                .map_or("", |(_, name)| name);
            match self.files.iter().find(|(file, _)| file == name) {
                None => (404, String::new(), Vec::new()),
                Some((_, bytes)) => {
                    let etag: String = Sha256::digest(bytes)
                        .iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect();
                    let end = bytes.len().min(last.saturating_add(1));
                    let range = format!(
                        "Content-Range: bytes {first}-{}/{}\r\n",
                        end - 1,
                        bytes.len()
                    );
                    (
                        206,
                        format!("ETag: \"{etag}\"\r\n{range}"),
                        bytes[first.min(end)..end].to_vec(),
                    )
                }
            }
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nConnection: close\r\nRetry-After: 0\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.furthest.fetch_max(first, Ordering::SeqCst);
        stream.write_all(head.as_bytes())?;
        for piece in body.chunks(16 << 10) {
            if self.slow.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(25));
            }
            stream.write_all(piece)?;
            self.sent.fetch_add(piece.len(), Ordering::SeqCst);
        }
        Ok(())
    }
}
