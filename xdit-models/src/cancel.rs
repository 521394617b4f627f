//! A token that ends calls from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Ends loading, downloading and drawing from another thread. A clone is the same token.
///
/// A call receives a token from its observer ([`Observer::cancel_token`](crate::Observer::cancel_token)). The token is an observer itself, which observes
/// nothing. After [`cancel`](Self::cancel) the call returns [`Error::Cancelled`], whatever the number of ranks. It ends after the
/// operation that each rank is in: one call of a kernel while it denoises or decodes, one layer while it encodes prompts, one
/// tensor while it loads weights. A download ends when its next bytes arrive, and at the latest after
/// `HubOptions::download_timeout`.
///
/// A pipeline stays usable: later calls with another token draw the same images. A token stays cancelled.
///
/// With a group of the caller ([`Parallel::group`](crate::Parallel::group)), each rank asks its own observer. Give a token to each
/// of them, and cancel all. A rank whose own token is not cancelled returns an error that names the rank which ended the call.
///
/// # Examples
/// ```
/// # #[cfg(feature = "demo")] {
/// use std::time::Duration;
/// use xdit_models::{CancelToken, Error, LoadOptions, ModelSource, Pipeline, Request};
/// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
/// let token = CancelToken::new();
/// let timer = std::thread::spawn({
///     let token = token.clone();
///     move || {
///         std::thread::sleep(Duration::from_millis(50));
///         token.cancel();
///     }
/// });
/// let result = pipe.generate(&Request::new("a red circle").num_inference_steps(1000), &mut token.clone());
/// assert!(matches!(result, Err(Error::Cancelled)));
/// # timer.join().unwrap();
/// # }
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Creates a token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all calls that have this token or a clone of it, and all later calls with it. It does not wait for their end.
    pub fn cancel(&self) {
        // The flag carries no data, so no other memory has to be ordered with it.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns [`Error::Cancelled`] if the token is cancelled, for `?` in code of your own.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Returns the error of a call with this token. A rank that lost another rank was ended by the token too if the token is
    /// cancelled.
    pub(crate) fn named(&self, error: Error) -> Error {
        match self.is_cancelled() {
            true => match error.lost_peer() {
                Ok(_) => Error::Cancelled,
                Err(own) => own,
            },
            false => error,
        }
    }
}
