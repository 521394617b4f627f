use std::fmt;

/// The thing that an invalid plan divides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The image, divided into patches.
    Patches,
    /// The model, divided into stages.
    Stages,
    /// The numbers of blocks of the stages.
    Blocks,
    /// The costs of blocks.
    Costs,
    /// The latents of a run, one tensor per patch.
    Latents,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patches => "number of pipeline patches",
            Self::Stages => "number of pipeline stages",
            Self::Blocks => "blocks of each stage",
            Self::Costs => "cost of a block",
            Self::Latents => "number of latents",
        })
    }
}

/// An invalid plan, a stage that breaks its contract, a lost rank, or a failed tensor operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image or model cannot be divided into this number of patches or stages.
    #[error("{what}: {found}, but must be {allowed}")]
    Plan {
        /// What should be divided.
        what: What,
        /// The requested value.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// The prediction of the last stage does not have one tensor for each patch.
    #[error(
        "prediction of {turn}: the number of tensors is {got}, but must be {expected}, one for each patch"
    )]
    Predictions {
        /// The turn.
        turn: crate::Turn,
        /// The number of patches of the turn.
        expected: usize,
        /// The number of tensors.
        got: usize,
    },
    /// Communication failed.
    #[error(transparent)]
    Comm(#[from] xdit_comm::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Kernel(#[from] xdit_kernels::Error),
    /// An error of a user's stage or sampler.
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an [`Error::Other`] from any error, or from a text: for the closures of [`stage_fn`](crate::stage_fn) and
    /// [`sampler_fn`](crate::sampler_fn).
    ///
    /// # Examples
    /// ```
    /// use xdit_comm::{Spec, threads};
    /// use xdit_kernels::{DType, Device, Tensor};
    /// use xdit_pipefusion::{Driver, Error, Schedule, sampler_fn, stage_fn};
    /// let failed = threads::run(2, |pipe| {
    ///     let last = pipe.rank() == 1;
    ///     let noise = vec![Tensor::zeros([1, 2, 1], DType::F32, &Device::cpu())?];
    ///     let mut stage = stage_fn(1, Spec::of(&noise[0]), move |_turn, x| match last {
    ///         true => Err(Error::other("my layer has no weights")),
    ///         false => Ok(x.clone()),
    ///     });
    ///     let mut sampler = sampler_fn(|_turn, prediction, _| Ok(prediction.clone()));
    ///     let schedule = Schedule { steps: 1, warmup_steps: 1, patches: 1 };
    ///     Ok(Driver::new(schedule).pipe(pipe).run(&mut stage, &mut sampler, noise)?)
    /// });
    /// assert_eq!(failed.unwrap_err().to_string(), "rank 1: my layer has no weights");
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    pub(crate) fn plan(what: What, found: impl ToString, allowed: impl ToString) -> Self {
        Self::Plan {
            what,
            found: found.to_string(),
            allowed: allowed.to_string(),
        }
    }
}

impl From<Error> for xdit_comm::Error {
    /// Converts the error for the closure of [`xdit_comm::threads::run`]. A communication error stays as it is, and so does the
    /// content of [`Error::Other`]. The other errors become the content of [`xdit_comm::Error::Other`].
    fn from(error: Error) -> Self {
        match error {
            Error::Comm(error) => error,
            Error::Kernel(error) => error.into(),
            Error::Other(own) => Self::Other(own),
            other => Self::other(other),
        }
    }
}
