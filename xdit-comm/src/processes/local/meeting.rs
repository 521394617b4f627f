//! How the ranks of a host find each other's sockets.

use super::Local;
use super::links::SocketLinks;
use crate::{Error, Result};
use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use xdit_kernels::{Device, DeviceKind};

/// How often a rank that waits for connections looks whether the others still live.
const LOOK: Duration = Duration::from_millis(2);

/// A socket of this process, at which the ranks that follow it will connect. The first step to a [`Local`] transport.
///
/// The socket lies in a folder that only this user can enter. It goes when the ranks have connected.
#[derive(Debug)]
pub struct Meeting {
    listener: UnixListener,
    folder: Folder,
}

/// A folder of one socket, removed with this value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn socket(&self) -> PathBuf {
        self.0.join("rank")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Meeting {
    /// Opens a socket in a new folder inside of `folder`, for example that of temporary files. The path of a socket has at most
    /// about 100 bytes.
    ///
    /// # Errors
    /// If the system refuses the folder or the socket.
    pub fn open(folder: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let mut number = 0;
            let folder = loop {
                let name = format!("xdit-{}-{number}", std::process::id());
                let path = folder.join(name);
                match DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => break Folder(path),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                    Err(error) => return Err(error),
                }
            };
            let listener = UnixListener::bind(folder.socket())?;
            listener.set_nonblocking(true)?;
            Ok(Self { listener, folder })
        };
        open().map_err(|error| {
            let folder = folder.display();
            Error::other(format!(
                "no socket in {folder} for the ranks of this host: {error}"
            ))
        })
    }

    /// Returns what the other ranks need to connect. Ranks exchange it on their control plane.
    pub fn address(&self) -> Vec<u8> {
        self.folder.socket().into_os_string().into_vec()
    }

    /// Connects this rank with all others. `addresses` are those of all ranks of the world, in rank order. Received tensors are of
    /// `device`, a processor. `alive` is called again and again while this rank waits, and ends the waiting with its error.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// That of `alive`; or the system's, with the rank.
    pub fn connect(
        self,
        rank: usize,
        addresses: &[Vec<u8>],
        device: &Device,
        mut alive: impl FnMut() -> Result<()>,
    ) -> Result<Local> {
        if !matches!(device.kind(), DeviceKind::Cpu(_)) {
            return Err(Error::other(format!(
                "sockets move tensors of the processor, not of {device}"
            )));
        }
        let world_size = addresses.len();
        let failed = |what: String, error: &io::Error| Error::other(format!("{what}: {error}"));
        let mut sockets: Vec<Option<UnixStream>> = (0..world_size).map(|_| None).collect();
        for (other, address) in addresses.iter().enumerate().take(rank) {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(address));
            let connected = connect(&path, rank, &mut alive)?;
            let refused = |error| failed(format!("no connection to rank {other}"), &error);
            sockets[other] = Some(connected.map_err(refused)?);
        }
        let mut missing = world_size.saturating_sub(rank + 1);
        while missing > 0 {
            let accepted = match self.listener.accept() {
                Ok((socket, _)) => first_words(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    alive()?;
                    thread::sleep(LOOK);
                    continue;
                }
                Err(error) => Err(error),
            };
            let (socket, other) =
                accepted.map_err(|error| failed("no connection from a rank".into(), &error))?;
            match sockets.get_mut(other) {
                Some(place) if other > rank && place.is_none() => *place = Some(socket),
                _ => {
                    return Err(Error::other(format!(
                        "rank {rank} of {world_size} was called by a rank {other}"
                    )));
                }
            }
            missing -= 1;
        }
        let links = SocketLinks::new(rank, sockets, device);
        let links = links.map_err(|error| failed("no threads for the sockets".into(), &error))?;
        Ok(Local::of_world(links, world_size))
    }
}

/// Connects to a rank before this one, and says who calls. A rank that accepts no connection yet has a queue of them.
fn connect(
    path: &Path,
    rank: usize,
    alive: &mut impl FnMut() -> Result<()>,
) -> Result<io::Result<UnixStream>> {
    loop {
        let connected = UnixStream::connect(path).and_then(|mut socket| {
            socket.write_all(&(rank as u64).to_le_bytes())?;
            Ok(socket)
        });
        match connected {
            // Its queue is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                alive()?;
                thread::sleep(LOOK);
            }
            done => return Ok(done),
        }
    }
}

/// Who calls. A caller writes it at once.
fn first_words(mut socket: UnixStream) -> io::Result<(UnixStream, usize)> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut rank = [0; 8];
    socket.read_exact(&mut rank)?;
    socket.set_read_timeout(None)?;
    let rank = usize::try_from(u64::from_le_bytes(rank)).unwrap_or(usize::MAX);
    Ok((socket, rank))
}
