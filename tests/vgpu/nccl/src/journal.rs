//! What the ranks of a process tell those of other processes: each process appends it to a file of its own, in a folder of the
//! meeting, and the others read along.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::meetings::MeetingId;
use crate::messages::Extent;
use crate::settings;

/// What a rank has done. Cliques have their names.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// It has come to the meeting.
    Joined { rank: usize, size: usize, gpu: u64 },
    /// It takes part in a split of a clique.
    Split {
        clique: String,
        rank: usize,
        number: usize,
        color: i32,
        key: i32,
    },
    /// It has begun a group.
    Grouped {
        clique: String,
        rank: usize,
        number: usize,
        items: Vec<(bool, usize, Extent)>,
    },
    /// Its stream has come to a group, which sends this.
    Arrived {
        clique: String,
        rank: usize,
        number: usize,
        data: Vec<Vec<u8>>,
    },
}

impl Event {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        let mut put = |numbers: &[usize]| {
            let numbers = numbers.iter().map(|number| *number as u64);
            bytes.extend(numbers.flat_map(u64::to_le_bytes));
        };
        let (clique, data): (&str, &[Vec<u8>]) = match self {
            Self::Joined { rank, size, gpu } => {
                put(&[0, *rank, *size, *gpu as usize]);
                ("", &[])
            }
            Self::Split {
                clique,
                rank,
                number: at,
                color,
                key,
            } => {
                put(&[1, *rank, *at, *color as u32 as usize, *key as u32 as usize]);
                (clique, &[])
            }
            Self::Grouped {
                clique,
                rank,
                number: at,
                items,
            } => {
                put(&[2, *rank, *at, items.len()]);
                for (is_send, peer, Extent { count, dtype }) in items {
                    put(&[usize::from(*is_send), *peer, *count, *dtype as usize]);
                }
                (clique, &[])
            }
            Self::Arrived {
                clique,
                rank,
                number: at,
                data,
            } => {
                put(&[3, *rank, *at, data.len()]);
                (clique, data)
            }
        };
        for part in std::iter::once(clique.as_bytes()).chain(data.iter().map(Vec::as_slice)) {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        let len = (bytes.len() - 8) as u64;
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    /// What was encoded, without its length.
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut number = || {
            Some(
                take(&mut bytes, 8)?
                    .try_into()
                    .map(u64::from_le_bytes)
                    .ok()? as usize,
            )
        };
        let (kind, rank, at) = (number()?, number()?, number()?);
        let third = number()?;
        let event = match kind {
            0 => Self::Joined {
                rank,
                size: at,
                gpu: third as u64,
            },
            1 => Self::Split {
                color: third as u32 as i32,
                key: number()? as u32 as i32,
                clique: text(&mut bytes)?,
                rank,
                number: at,
            },
            2 => {
                let mut items = Vec::new();
                for _ in 0..third {
                    let (is_send, peer) = (number()? == 1, number()?);
                    let (count, dtype) = (number()?, number()? as u32);
                    items.push((is_send, peer, Extent { count, dtype }));
                }
                Self::Grouped {
                    clique: text(&mut bytes)?,
                    rank,
                    number: at,
                    items,
                }
            }
            _ => Self::Arrived {
                clique: text(&mut bytes)?,
                rank,
                number: at,
                data: (0..third)
                    .map(|_| part(&mut bytes).map(<[u8]>::to_vec))
                    .collect::<Option<_>>()?,
            },
        };
        Some(event)
    }
}

fn take<'b>(bytes: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn part<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let len = take(bytes, 8)?.try_into().map(u64::from_le_bytes).ok()?;
    take(bytes, len as usize)
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(part(bytes)?).into_owned())
}

/// The journals of this process.
static OWN: Mutex<Option<HashMap<MeetingId, File>>> = Mutex::new(None);

/// Where the processes of a meeting have their journals, if ranks are processes.
pub(crate) fn folder((process, number): MeetingId) -> Option<PathBuf> {
    Some(settings::folder()?.join(format!("{process}-{number}")))
}

/// Makes the folder of a meeting.
pub(crate) fn open(id: MeetingId) {
    if let Some(folder) = folder(id) {
        done(fs::create_dir_all(folder));
    }
}

/// Whether a process has made this id.
pub(crate) fn is_there(id: MeetingId) -> bool {
    folder(id).is_some_and(|folder| folder.is_dir())
}

/// Tells the other processes of a meeting.
pub(crate) fn write(id: MeetingId, event: &Event) {
    let Some(folder) = folder(id) else {
        return;
    };
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let file = own.get_or_insert_default().entry(id).or_insert_with(|| {
        let name = folder.join(std::process::id().to_string());
        done(File::create(name))
    });
    done(file.write_all(&event.encode()));
}

/// A test with a folder that cannot be used would hang, so the process ends.
fn done<T>(outcome: std::io::Result<T>) -> T {
    outcome.unwrap_or_else(|error| {
        eprintln!("vgpu: VGPU_NCCL_FOLDER: {error}");
        std::process::abort()
    })
}

/// The journal of another process, as far as it was read.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    bytes: Vec<u8>,
    next: Option<Event>,
}

impl Reader {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            bytes: Vec::new(),
            next: None,
        }
    }

    /// Reads what is new.
    pub(crate) fn read(&mut self) {
        done(self.file.read_to_end(&mut self.bytes));
    }

    /// The next event that was read.
    pub(crate) fn peek(&mut self) -> Option<&Event> {
        if self.next.is_none() {
            let len = self.bytes.first_chunk().copied().map(u64::from_le_bytes)? as usize;
            let event = self.bytes.get(8..8 + len)?;
            self.next = Event::decode(event);
            self.bytes.drain(..8 + len);
        }
        self.next.as_ref()
    }

    /// Goes on to the event after it.
    pub(crate) fn pop(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_arrive_as_they_were_written() {
        let extent = Extent { count: 5, dtype: 7 };
        let clique = "/3.-1".to_owned();
        let place = || (clique.clone(), 1, 300);
        let (a, rank, number) = place();
        let events = [
            Event::Joined {
                rank,
                size: 4,
                gpu: 3,
            },
            Event::Split {
                clique: a.clone(),
                rank,
                number,
                color: -1,
                key: -7,
            },
            Event::Grouped {
                clique: a.clone(),
                rank,
                number,
                items: vec![(true, 2, extent), (false, 0, extent)],
            },
            Event::Arrived {
                clique: a,
                rank,
                number,
                data: vec![vec![1, 2, 3], vec![]],
            },
        ];
        for event in events {
            let bytes = event.encode();
            assert_eq!(Event::decode(&bytes[8..]), Some(event));
            assert_eq!(bytes[..8], (bytes.len() as u64 - 8).to_le_bytes());
        }
    }
}
