//! Who a process is, and whether it belongs to the world of rank 0.

use super::bytes::{FieldWriter, Fields, Read};
use crate::{Error, Result};
use std::fmt;

/// The version of the protocol. It changes with the bytes of any frame.
pub(super) const VERSION: u64 = 2;
/// The first bytes of a hello of any version.
const MAGIC: u64 = u64::from_le_bytes(*b"xdit-rs\0");
/// The most ranks of a world. Rank 0 has two threads for each.
const MAX_RANKS: usize = 4096;
/// The most bytes of a text in a hello.
const MAX_TEXT: usize = 1024;

/// What only the processes of one job know. Strangers that reach the port of rank 0 are refused. It travels in the clear, so it is
/// no protection from those who read the network. It is never printed.
#[derive(Clone)]
pub struct JobSecret {
    bytes: Box<[u8; Self::MAX_LEN]>,
    len: usize,
}

impl JobSecret {
    /// The most bytes of a secret.
    pub const MAX_LEN: usize = 256;

    /// Creates a secret of these bytes. A process is let in if its secret is that of rank 0. If rank 0's secret is empty, it lets
    /// in every process without one.
    ///
    /// # Errors
    /// [`Error::Rendezvous`] if there are more than [`MAX_LEN`](Self::MAX_LEN).
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self> {
        let secret = secret.as_ref();
        let mut bytes = Box::new([0; Self::MAX_LEN]);
        let Some(start) = bytes.get_mut(..secret.len()) else {
            return Err(Error::Rendezvous(format!(
                "the job secret has {} bytes; at most {} are allowed",
                secret.len(),
                Self::MAX_LEN
            )));
        };
        start.copy_from_slice(secret);
        let len = secret.len();
        Ok(Self { bytes, len })
    }

    /// Whether both are the same, in a time that tells nothing of either.
    fn is(&self, other: &Self) -> bool {
        let pairs = self.bytes.iter().zip(&*other.bytes);
        let differs = pairs.fold(self.len ^ other.len, |all, (a, b)| {
            std::hint::black_box(all | usize::from(a ^ b))
        });
        differs == 0
    }
}

impl Default for JobSecret {
    /// No secret.
    fn default() -> Self {
        Self {
            bytes: Box::new([0; Self::MAX_LEN]),
            len: 0,
        }
    }
}

impl fmt::Debug for JobSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobSecret")
    }
}

/// The place of a process among the processes of a job, as its launcher tells it.
///
/// `build` and `plan` are texts that must be equal on all ranks, such as hashes: those of the program, and of what the ranks will
/// do together. `restart` counts how often the launcher has started the job again, so that processes of different attempts do not
/// meet.
#[derive(Debug, Clone)]
pub struct RankPlace {
    /// The number of this process.
    pub rank: usize,
    /// The number of processes.
    pub world_size: usize,
    /// The name of this host, for messages.
    pub host: String,
    /// Host and port at which rank 0 listens, such as `node1:29501` or `[fd00::1]:29501`.
    pub rendezvous: String,
    /// What strangers do not know.
    pub secret: JobSecret,
    /// How often the job was started before.
    pub restart: u64,
    /// The program.
    pub build: String,
    /// What the ranks will do.
    pub plan: String,
    /// The number of each rank in errors that report a lost one, where that is not its number in this world: ranks that go on without a
    /// lost one keep the numbers that their user knows. Empty otherwise.
    pub numbers: Vec<usize>,
}

/// The first message of a process to rank 0.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) version: u64,
    pub(super) rank: usize,
    pub(super) world_size: usize,
    pub(super) restart: u64,
    pub(super) pid: u32,
    pub(super) host: String,
    build: String,
    plan: String,
    secret: JobSecret,
}

/// Why a process is refused.
#[derive(Debug)]
pub(super) struct HelloRefusal {
    pub(super) reason: String,
    /// Whether the process is of the job, which therefore cannot begin.
    pub(super) ends_the_job: bool,
}

impl Hello {
    pub(super) fn of(place: &RankPlace) -> Result<Self> {
        let RankPlace {
            rank,
            world_size,
            host,
            build,
            plan,
            ..
        } = place;
        if rank >= world_size {
            return Err(Error::Rendezvous(format!(
                "there is no rank {rank} among {world_size} ranks: ranks are numbered from 0"
            )));
        }
        if *world_size > MAX_RANKS {
            return Err(Error::Rendezvous(format!(
                "{world_size} ranks are more than the control plane can bring together ({MAX_RANKS})"
            )));
        }
        for (what, text) in [("host name", host), ("build", build), ("plan", plan)] {
            if text.len() > MAX_TEXT {
                return Err(Error::Rendezvous(format!(
                    "the {what} has {} bytes; at most {MAX_TEXT} are allowed",
                    text.len()
                )));
            }
        }
        Ok(Self {
            version: VERSION,
            rank: *rank,
            world_size: *world_size,
            restart: place.restart,
            pid: std::process::id(),
            host: host.clone(),
            build: build.clone(),
            plan: plan.clone(),
            secret: place.secret.clone(),
        })
    }

    pub(super) fn write(&self, to: &mut FieldWriter) {
        to.number(MAGIC).number(self.version);
        to.index(self.rank).index(self.world_size);
        to.number(self.restart).number(u64::from(self.pid));
        to.text(&self.host).text(&self.build).text(&self.plan);
        to.bytes(&self.secret.bytes[..self.secret.len]);
    }

    /// Reads what all versions have, and the rest if the version is this one.
    pub(super) fn read(from: &mut Fields<'_>) -> Read<Self> {
        if from.number()? != MAGIC {
            return Err("a hello of another protocol".to_owned());
        }
        let version = from.number()?;
        if version != VERSION {
            from.skip_rest();
            return Ok(Self {
                version,
                rank: 0,
                world_size: 0,
                restart: 0,
                pid: 0,
                host: String::new(),
                build: String::new(),
                plan: String::new(),
                secret: JobSecret::default(),
            });
        }
        let text = |from: &mut Fields<'_>| {
            let text = from.text()?;
            let fits = text.len() <= MAX_TEXT;
            fits.then_some(text)
                .ok_or_else(|| "a text is too long".to_owned())
        };
        Ok(Self {
            version,
            rank: from.index()?,
            world_size: from.index()?,
            restart: from.number()?,
            pid: u32::try_from(from.number()?).map_err(|_| "there is no such process")?,
            host: text(from)?,
            build: text(from)?,
            plan: text(from)?,
            secret: JobSecret::new(from.bytes()?).map_err(|error| error.to_string())?,
        })
    }

    /// Whether a process with this hello is of a later attempt of the same job. It waits until this one has ended.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        let same = other.version == self.version && self.secret.is(&other.secret);
        same && self.restart < other.restart
    }

    /// Whether a process with this hello is another rank of the same attempt of the job.
    pub(super) fn is_of_job(&self, other: &Self) -> bool {
        let ours = [self.version, self.restart, self.world_size as u64];
        ours == [other.version, other.restart, other.world_size as u64]
            && self.secret.is(&other.secret)
            && other.rank != self.rank
            && other.rank < self.world_size
    }

    /// Whether a process with this hello may take part in the world of rank 0, whose hello is `self`.
    pub(super) fn admits(&self, other: &Self) -> Result<(), HelloRefusal> {
        let (zero, own) = (&self.host, other.rank);
        let refuse = |ends_the_job: bool, what: &str, theirs: &str, mine: &str, advice: &str| {
            let reason = format!(
                "rank 0 ({zero}) refuses rank {own} ({}): its {what} is {theirs}, that of rank 0 is {mine}. {advice}",
                other.host
            );
            Err(HelloRefusal {
                reason,
                ends_the_job,
            })
        };
        if other.version != self.version {
            let (theirs, mine) = (other.version, self.version);
            return Err(HelloRefusal {
                reason: format!(
                    "rank 0 ({zero}) refuses a process: its protocol has version {theirs}, that of rank 0 has version {mine}. Start the same program on every host"
                ),
                ends_the_job: false,
            });
        }
        if !self.secret.is(&other.secret) {
            return Err(HelloRefusal {
                reason: format!(
                    "rank 0 ({zero}) refuses rank {own} ({}): it has another job secret. Is it a process of another job?",
                    other.host
                ),
                ends_the_job: false,
            });
        }
        let of = |number: u64| number.to_string();
        if other.restart != self.restart {
            let (theirs, mine) = (of(other.restart), of(self.restart));
            let advice = "It is a process of another attempt of the job";
            return refuse(false, "restart count", &theirs, &mine, advice);
        }
        if other.world_size != self.world_size {
            let (theirs, mine) = (of(other.world_size as u64), of(self.world_size as u64));
            let advice = "Start all ranks with the same number of ranks";
            return refuse(true, "number of ranks", &theirs, &mine, advice);
        }
        if other.rank >= self.world_size {
            let last = format!("from 0 to {}", self.world_size.saturating_sub(1));
            return Err(HelloRefusal {
                reason: format!("rank 0 ({zero}) refuses rank {own}: ranks are {last}"),
                ends_the_job: false,
            });
        }
        if other.build != self.build {
            let advice = "Start the same program on every host";
            return refuse(true, "build", &other.build, &self.build, advice);
        }
        if other.plan != self.plan {
            let advice = "Start all ranks with the same arguments";
            return refuse(true, "plan", &other.plan, &self.plan, advice);
        }
        Ok(())
    }
}
