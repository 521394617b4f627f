//! What processes say to each other on the control plane: frames over TCP.
//!
//! A frame is its length (4 bytes, little-endian, without itself), its kind (one byte) and its fields. Each kind has a limit. A
//! reader keeps only bytes that have arrived, so a frame that announces more than it sends costs nothing.

use super::{
    bytes::{FieldWriter, Fields, MAX_SHORTENED, Read, shortened},
    calls::{
        read_call, read_failure, read_loss, read_time, write_call, write_failure, write_loss,
        write_time,
    },
    hello::Hello,
};
use crate::{
    Loss,
    threads::{agree::CallSpecs, state::WorldFailure},
};
use std::time::Duration;

/// The most bytes that one rank gives in an exchange.
pub(super) const MAX_PART: usize = 16 << 20;
/// The most bytes that the exchanges of a group have which are not complete.
pub(super) const MAX_EXCHANGE: usize = 256 << 20;
/// The most bytes of a frame that has something for each rank.
const MAX_LIST: usize = 16 << 20;
/// The most bytes of a frame that says who somebody is or why something failed.
const MAX_TEXT: usize = MAX_SHORTENED + MAX_NUMBERS;
/// The most bytes of a frame that has a few numbers.
const MAX_NUMBERS: usize = 256;

/// What a rank starts, in the order of its group.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Posted {
    Call(CallSpecs),
    Split { color: usize, key: usize },
}

/// The target of a rank that waits, in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// A collective, by its number.
    Round(usize),
    /// A message, by its sender and its number.
    Message { src: usize, number: usize },
    /// That a message is received, by its receiver and its number.
    Receipt { dst: usize, number: usize },
    /// An exchange of the control plane, by its number.
    Exchange(usize),
}

/// A process of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name of its host.
    pub host: String,
    /// The number of its process on that host.
    pub pid: u32,
}

/// A message of the control plane.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// The first of a connection.
    Hello(Hello),
    /// The first and only one of a connection: a rank cannot come, for this reason.
    CannotCome { hello: Hello, reason: String },
    /// The answer, when all ranks have come: all of them, in rank order.
    Welcome(Vec<Peer>),
    /// The other answer: the world does not begin, and all ranks hear why.
    Refused(String),
    /// The answer to a process that the ranks do without.
    TurnedAway(String),
    /// A sign of life.
    Beat,
    /// The sender has started this in the group.
    Post { group: usize, what: Posted },
    /// The sender's part of the next exchange of the group.
    Exchange { group: usize, bytes: Vec<u8> },
    /// The parts of all.
    Exchanged {
        group: usize,
        number: usize,
        parts: Vec<Vec<u8>>,
    },
    /// The receiver's subgroup out of a split, which is a collective of this number: its own number, and ranks of the group.
    Subgroup {
        group: usize,
        number: usize,
        subgroup: usize,
        members: Vec<usize>,
    },
    /// The sender has waited a while, in these calls.
    Wait {
        group: usize,
        targets: Vec<(Awaited, String)>,
    },
    /// The sender has waited for `limit` in the calls that it told last.
    Overdue { is_exchange: bool, limit: Duration },
    /// The sender is lost, for this reason.
    Fail(Loss),
    /// The transport of the sender has failed, maybe because of another rank.
    Suspect(String),
    /// Asks for everything that the receiver has not sent yet.
    Flush,
    /// The answer: it has been sent.
    Flushed,
    /// The world has failed.
    Failed(WorldFailure),
    /// The sender is done.
    Bye,
}

/// The greatest number of bytes of the fields of a frame of this kind.
fn limit(kind: u8) -> Read<usize> {
    Ok(match kind {
        0 | 2 | 14 | 16 => MAX_TEXT,
        17 => 2 * MAX_TEXT,
        3 | 10..=12 => 0,
        8 => MAX_NUMBERS,
        5 => MAX_PART + MAX_NUMBERS,
        6 => MAX_EXCHANGE + MAX_LIST,
        1 | 4 | 7 | 9 | 13 | 15 => MAX_LIST,
        other => return Err(format!("there is no frame of kind {other}")),
    })
}

fn write_awaited(to: &mut FieldWriter, what: Awaited) {
    match what {
        Awaited::Round(number) => to.byte(0).index(number),
        Awaited::Message { src, number } => to.byte(1).index(src).index(number),
        Awaited::Exchange(number) => to.byte(2).index(number),
        Awaited::Receipt { dst, number } => to.byte(3).index(dst).index(number),
    };
}

fn read_awaited(from: &mut Fields<'_>) -> Read<Awaited> {
    Ok(match from.byte()? {
        0 => Awaited::Round(from.index()?),
        1 => Awaited::Message {
            src: from.index()?,
            number: from.index()?,
        },
        2 => Awaited::Exchange(from.index()?),
        3 => Awaited::Receipt {
            dst: from.index()?,
            number: from.index()?,
        },
        other => return Err(format!("there is no target of number {other}")),
    })
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 0,
            Self::Welcome(_) => 1,
            Self::Refused(_) => 2,
            Self::Beat => 3,
            Self::Post { .. } => 4,
            Self::Exchange { .. } => 5,
            Self::Exchanged { .. } => 6,
            Self::Wait { .. } => 7,
            Self::Overdue { .. } => 8,
            Self::Fail(_) => 9,
            Self::Flush => 10,
            Self::Flushed => 11,
            Self::Bye => 12,
            Self::Failed(_) => 13,
            Self::Suspect(_) => 14,
            Self::Subgroup { .. } => 15,
            Self::TurnedAway(_) => 16,
            Self::CannotCome { .. } => 17,
        }
    }

    /// The bytes of this frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = FieldWriter(vec![0; 4]);
        to.byte(self.kind());
        match self {
            Self::Hello(hello) => hello.write(&mut to),
            Self::CannotCome { hello, reason } => {
                to.text(shortened(reason));
                hello.write(&mut to);
            }
            Self::Welcome(peers) => {
                to.several(peers, |to, peer| {
                    to.text(&peer.host).number(u64::from(peer.pid));
                });
            }
            Self::Refused(reason) | Self::TurnedAway(reason) | Self::Suspect(reason) => {
                to.text(shortened(reason));
            }
            Self::Beat | Self::Flush | Self::Flushed | Self::Bye => {}
            Self::Post { group, what } => {
                to.index(*group);
                match what {
                    Posted::Call(call) => write_call(to.byte(0), call),
                    Posted::Split { color, key } => {
                        to.byte(1).index(*color).index(*key);
                    }
                }
            }
            Self::Exchange { group, bytes } => {
                to.index(*group).bytes(bytes);
            }
            Self::Exchanged {
                group,
                number,
                parts,
            } => {
                to.index(*group).index(*number);
                to.several(parts, |to, part| {
                    to.bytes(part);
                });
            }
            Self::Subgroup {
                group,
                number,
                subgroup,
                members,
            } => {
                to.index(*group).index(*number).index(*subgroup);
                to.several(members, |to, member| {
                    to.index(*member);
                });
            }
            Self::Wait { group, targets } => {
                to.index(*group);
                to.several(targets, |to, (what, call)| {
                    write_awaited(to, *what);
                    to.text(shortened(call));
                });
            }
            Self::Overdue { is_exchange, limit } => {
                write_time(to.byte(u8::from(*is_exchange)), *limit);
            }
            Self::Fail(Loss::Failed(reason)) => {
                write_loss(&mut to, &Loss::Failed(shortened(reason).to_owned()));
            }
            Self::Fail(loss) => write_loss(&mut to, loss),
            Self::Failed(failure) => write_failure(&mut to, failure),
        }
        let length = to.0.len() as u32 - 4;
        to.0[..4].copy_from_slice(&length.to_le_bytes());
        to.0
    }

    /// The frame of these bytes, without the length.
    fn decode(bytes: &[u8]) -> Read<Self> {
        let mut from = Fields::new(bytes);
        let frame = match from.byte()? {
            0 => Self::Hello(Hello::read(&mut from)?),
            1 => Self::Welcome(from.several(16, |from| {
                let host = from.text()?;
                let pid = from.number()?;
                let pid = u32::try_from(pid).map_err(|_| format!("there is no process {pid}"))?;
                Ok(Peer { host, pid })
            })?),
            2 => Self::Refused(from.text()?),
            3 => Self::Beat,
            4 => Self::Post {
                group: from.index()?,
                what: match from.byte()? {
                    0 => Posted::Call(read_call(&mut from)?),
                    1 => Posted::Split {
                        color: from.index()?,
                        key: from.index()?,
                    },
                    other => return Err(format!("there is no post of number {other}")),
                },
            },
            5 => Self::Exchange {
                group: from.index()?,
                bytes: from.bytes()?,
            },
            6 => Self::Exchanged {
                group: from.index()?,
                number: from.index()?,
                parts: from.several(8, Fields::bytes)?,
            },
            7 => Self::Wait {
                group: from.index()?,
                targets: from.several(17, |from| Ok((read_awaited(from)?, from.text()?)))?,
            },
            8 => Self::Overdue {
                is_exchange: from.byte()? != 0,
                limit: read_time(&mut from)?,
            },
            9 => Self::Fail(read_loss(&mut from)?),
            10 => Self::Flush,
            11 => Self::Flushed,
            12 => Self::Bye,
            13 => Self::Failed(read_failure(&mut from)?),
            14 => Self::Suspect(from.text()?),
            15 => Self::Subgroup {
                group: from.index()?,
                number: from.index()?,
                subgroup: from.index()?,
                members: from.several(8, Fields::index)?,
            },
            16 => Self::TurnedAway(from.text()?),
            17 => Self::CannotCome {
                reason: from.text()?,
                hello: Hello::read(&mut from)?,
            },
            other => return Err(format!("there is no frame of kind {other}")),
        };
        from.end()?;
        Ok(frame)
    }
}

/// Puts frames together from the bytes that arrive.
#[derive(Debug, Default)]
pub(super) struct FrameDecoder {
    bytes: Vec<u8>,
    /// How many of them belong to frames that have been taken.
    taken: usize,
    /// Whether only a hello may come next.
    expects_hello: bool,
    /// Whether a rank sends them to rank 0.
    is_of_rank: bool,
}

impl FrameDecoder {
    /// A decoder of rank 0. It takes a hello first, and nothing else, and then only what ranks send.
    pub(super) fn of_rank() -> Self {
        Self {
            expects_hello: true,
            is_of_rank: true,
            ..Self::default()
        }
    }

    /// Adds bytes that have arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next frame, if all of it has arrived. After an error, nothing that follows makes sense.
    pub(super) fn next(&mut self) -> Read<Option<Frame>> {
        let rest = &self.bytes[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let Some(kind) = rest.first() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if self.expects_hello && !matches!(kind, 0 | 17) {
            return Err("it does not begin with a hello".to_owned());
        }
        // Before its bytes are kept: some of them are long.
        if self.is_of_rank && matches!(kind, 1 | 2 | 6 | 10 | 13 | 15 | 16) {
            return Err("a frame of another direction".to_owned());
        }
        let limit = limit(*kind)?;
        if length == 0 || length - 1 > limit {
            return Err(format!(
                "a frame of kind {kind} with {length} bytes, where at most {limit} are allowed"
            ));
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::decode(frame)?;
        self.expects_hello = false;
        self.taken += 4 + length;
        Ok(Some(frame))
    }
}
