//! The control plane of a group, which carries host bytes.

use crate::{Error, Group, Pending, Result};
use std::time::Duration;

/// The control plane of a [`Group`]: flags, sums in f64, and the reason why a rank failed. Its exchanges have an order of their own.
/// They do not wait for tensors of the data plane and do not block them.
///
/// # Collective
/// Every rank of the group makes the same calls in the same order, except [`fail`](Self::fail).
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
    /// Returns the control plane of this group.
    pub fn control(&self) -> Control<'_> {
        Control {
            group: self,
            deadline: None,
        }
    }
}

impl Control<'_> {
    /// The name of its exchanges in [`Stats`](crate::Stats).
    pub const OP: &'static str = "control";

    /// Sets a deadline for each exchange. A rank is lost if others have waited for it this long, even if it makes progress. Without
    /// this deadline, a rank is lost if it makes no progress for the deadline of the world.
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
        group.counters.started(Self::OP, group.axis, sent);
        let ticket = group.backend.start_control(bytes.to_vec(), self.deadline)?;
        Ok(Pending::new(
            ticket,
            group.counters.clone(),
            group.axis,
            Self::OP,
            sent,
        ))
    }

    /// Returns the bytes of all ranks, in rank order. Ranks may pass different numbers of bytes, or none.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::Disagree`], [`Error::Deadlock`].
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.start_all_gather(bytes)?.wait()
    }

    /// Returns the root's bytes. Those of other ranks are not sent.
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

    /// Starts [`all_gather_f64`](Self::all_gather_f64). [`numbers`](Self::numbers) reads the result.
    ///
    /// # Errors
    /// If a failure is known.
    pub fn start_all_gather_f64(&self, values: &[f64]) -> Result<Pending<Vec<Vec<u8>>>> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.start_all_gather(&bytes)
    }

    /// Returns the numbers of all ranks, in rank order, bit for bit.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn all_gather_f64(&self, values: &[f64]) -> Result<Vec<Vec<f64>>> {
        let all = self.start_all_gather_f64(values)?.wait()?;
        all.iter().map(|bytes| self.numbers(bytes)).collect()
    }

    /// Converts the bytes of a rank to the numbers that it sent.
    ///
    /// # Errors
    /// [`Error::Argument`] if the length is not a multiple of 8: that rank called another exchange.
    pub fn numbers(&self, bytes: &[u8]) -> Result<Vec<f64>> {
        let (eights, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            let got = format!("{} bytes", bytes.len());
            return Err(self.argument("numbers of 8 bytes each".to_owned(), got));
        }
        Ok(eights.iter().map(|x| f64::from_le_bytes(*x)).collect())
    }

    /// Returns for each flag whether it is true on any rank. All ranks pass the same number of flags.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather); [`Error::Argument`] if a rank passes another number of flags.
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
            op: Self::OP,
            rank: self.group.rank(),
            world_size: self.group.world_size(),
            expected,
            got: got.to_string(),
        }
    }

    /// Reports to all ranks of the world that this one has failed, and why. Their calls return [`Error::PeerLost`] with this reason.
    /// Only the first failure of a world is kept. This method never waits and is not collective. A rank run by
    /// [`threads`](crate::threads) does not need it: the error that its closure returns is reported to the others.
    pub fn fail(&self, reason: &str) {
        self.group.backend.fail(reason);
    }
}
