//! The variables of launchers as numbers, and what is wrong with them.

use xdit_models::quote;

use crate::report::failure::Failure;
use crate::run::environment::Environment;

/// The variables of launchers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variables<'a>(pub(super) &'a Environment);

/// A rank and a number of ranks, of two variables.
pub(super) type RankOf = (usize, usize);

impl<'a> Variables<'a> {
    /// Returns a text, if it is set.
    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.0.var(name)
    }

    /// Returns a number, if it is set.
    pub(super) fn number(self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text.trim().parse().map(Some);
        number.map_err(|_| {
            let found = quote::shorten(text);
            Failure::usage(format!("{name}={found}: expected a whole number"))
        })
    }

    fn index(self, name: &str) -> Result<Option<usize>, Failure> {
        // A number that no machine can count to is refused as too large below.
        let number = self.number(name)?;
        Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
    }

    /// Returns a port, if it is set.
    pub(super) fn port(self, name: &str) -> Result<Option<u16>, Failure> {
        match self.number(name)? {
            None => Ok(None),
            Some(number) => match u16::try_from(number) {
                Ok(port @ 1..) => Ok(Some(port)),
                _ => Err(Failure::usage(format!(
                    "{name}={number}: expected a port from 1 to 65535"
                ))),
            },
        }
    }

    /// Returns the rank and the number of ranks that two variables say; `None` if neither is set.
    pub(super) fn pair(self, rank: &str, size: &str) -> Result<Option<RankOf>, Failure> {
        match (self.index(rank)?, self.index(size)?) {
            (None, None) => Ok(None),
            (Some(at), Some(of)) if at < of => Ok(Some((at, of))),
            (Some(at), Some(of)) => Err(Failure::usage(format!(
                "{rank}={at} and {size}={of}: ranks are numbered from 0 to {size} − 1"
            ))),
            (Some(at), None) => Err(half_set(rank, at, size)),
            (None, Some(of)) => Err(half_set(size, of, rank)),
        }
    }

    /// Like [`pair`](Self::pair) for what a launcher may leave out: either, or both.
    pub(super) fn local(
        self,
        rank: &str,
        size: &str,
    ) -> Result<(Option<usize>, Option<usize>), Failure> {
        let (at, of) = (self.index(rank)?, self.index(size)?);
        if let (Some(_), Some(_)) = (at, of) {
            self.pair(rank, size)?;
        }
        Ok((at, of))
    }

    /// Returns an error if a variable that several launchers set, such as RANK, says something else than this launcher's own.
    pub(super) fn agree(self, common: &str, own: &str) -> Result<(), Failure> {
        match (self.index(common)?, self.index(own)?) {
            (Some(a), Some(b)) if a != b => Err(Failure::usage(format!(
                "{common}={a} contradicts {own}={b}: unset {common}, or set XDIT_LAUNCH=0 to run one process alone"
            ))),
            _ => Ok(()),
        }
    }
}

/// The error of a variable without its partner.
pub(super) fn half_set(set: &str, value: impl std::fmt::Display, missing: &str) -> Failure {
    Failure::usage(format!(
        "{set}={value} is set, but {missing} is not: set both, or neither, or XDIT_LAUNCH=0 to run one process alone"
    ))
}
