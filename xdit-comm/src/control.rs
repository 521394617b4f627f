//! The control plane of a group: bytes of the host.

use crate::{Error, Group, Pending, Result};
use std::time::Duration;

/// The operation's name in [`Stats`](crate::Stats).
const OP: &str = "control";

/// The control plane of a [`Group`]: flags, sums in f64, and why a rank has failed. Its exchanges are ordered among themselves, not
/// with the tensors of the data plane, and hold up none of these.
///
/// # Collective
/// But for [`fail`](Self::fail) every rank of the group makes the same calls in the same order.
///
/// # Examples
/// ```
/// let sums = xdit_comm::threads::run(2, |group| {
///     let all = group.control().all_gather_f64(&[1.0 / (3.0 + group.rank() as f64)])?;
///     Ok(all[0][0] + all[1][0])
/// })?;
/// assert_eq!(sums, [1.0 / 3.0 + 0.25; 2]);
/// # Ok::<(), xdit_comm::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Control<'a> {
    group: &'a Group,
    deadline: Option<Duration>,
}

impl Group {
    /// The control plane: bytes of the host, beside the tensors.
    pub fn control(&self) -> Control<'_> {
        Control {
            group: self,
            deadline: None,
        }
    }
}

impl Control<'_> {
    /// Sets a deadline for each exchange: a rank that others have waited for so long in one is lost, whether it makes progress
    /// or not. Without it a rank is lost that makes no progress for the deadline of the world.
    #[must_use]
    pub fn deadline(self, limit: Duration) -> Self {
        Self {
            deadline: Some(limit),
            ..self
        }
    }

    /// Starts [`all_gather`](Self::all_gather).
    ///
    /// # Errors
    /// If a failure is known.
    pub fn start_all_gather(&self, bytes: &[u8]) -> Result<Pending<Vec<Vec<u8>>>> {
        let group = self.group;
        let sent = bytes.len() * (group.world_size() - 1);
        group.counters.started(OP, group.axis, sent);
        let ticket = group.backend.start_control(bytes.to_vec(), self.deadline)?;
        Ok(Pending::new(
            ticket,
            group.counters.clone(),
            group.axis,
            OP,
            sent,
        ))
    }

    /// Every rank's bytes, in rank order. Ranks may give different numbers of bytes, and none.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::Disagree`], [`Error::Deadlock`].
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.start_all_gather(bytes)?.wait()
    }

    /// The root's bytes; the others' are not sent.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather); [`Error::Argument`] if there is no such rank.
    pub fn broadcast(&self, bytes: &[u8], root: usize) -> Result<Vec<u8>> {
        let group = self.group;
        if root >= group.world_size() {
            let expected = format!("a rank below {}", group.world_size());
            return Err(self.argument(expected, root));
        }
        let mine = if group.rank() == root { bytes } else { &[] };
        Ok(self.all_gather(mine)?.swap_remove(root))
    }

    /// Starts [`all_gather_f64`](Self::all_gather_f64); [`numbers`](Self::numbers) reads what arrives.
    ///
    /// # Errors
    /// If a failure is known.
    pub fn start_all_gather_f64(&self, values: &[f64]) -> Result<Pending<Vec<Vec<u8>>>> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.start_all_gather(&bytes)
    }

    /// Every rank's numbers, in rank order, bit for bit.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn all_gather_f64(&self, values: &[f64]) -> Result<Vec<Vec<f64>>> {
        let all = self.start_all_gather_f64(values)?.wait()?;
        all.iter().map(|bytes| self.numbers(bytes)).collect()
    }

    /// The numbers that a rank has sent.
    ///
    /// # Errors
    /// [`Error::Argument`] if the bytes are no whole numbers: that rank calls another exchange.
    pub fn numbers(&self, bytes: &[u8]) -> Result<Vec<f64>> {
        let (eights, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            let got = format!("{} bytes", bytes.len());
            return Err(self.argument("numbers of 8 bytes each".to_owned(), got));
        }
        Ok(eights.iter().map(|x| f64::from_le_bytes(*x)).collect())
    }

    /// Whether each flag is true on any rank. All ranks give as many.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather); [`Error::Argument`] if a rank gives another number of flags.
    pub fn any<const N: usize>(&self, flags: [bool; N]) -> Result<[bool; N]> {
        let all = self.all_gather(&flags.map(u8::from))?;
        let mut any = [false; N];
        for theirs in all {
            if theirs.len() != N {
                return Err(self.argument(format!("{N} flags"), theirs.len()));
            }
            for (any, flag) in any.iter_mut().zip(theirs) {
                *any |= flag != 0;
            }
        }
        Ok(any)
    }

    fn argument(&self, expected: String, got: impl ToString) -> Error {
        Error::Argument {
            op: OP,
            rank: self.group.rank(),
            world_size: self.group.world_size(),
            expected,
            got: got.to_string(),
        }
    }

    /// Tells all ranks of the world that this one has failed, and why: their calls return [`Error::PeerLost`] with this reason. Only
    /// the first failure of a world is kept. Not collective; never waits. A rank run by [`threads`](crate::threads) need not call
    /// it: what it returns tells the others.
    pub fn fail(&self, reason: &str) {
        self.group.backend.fail(reason);
    }
}
