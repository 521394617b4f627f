//! A token that ends calls from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Ends loading, downloading and drawing from another thread. A clone is the same token.
///
/// A call receives a token from its observer ([`Observer::cancel_token`](crate::Observer::cancel_token)). The token is an
/// observer itself, which observes nothing. After [`cancel`](Self::cancel) the call returns [`Error::Cancelled`], whatever the
/// number of ranks. It ends after the operation that each rank is in: one call of a kernel while it denoises or decodes, one
/// layer while it encodes prompts, one tensor while it loads weights. A download ends when its next bytes arrive, and at the
/// latest after `HubOptions::download_timeout`.
///
/// A pipeline stays usable: later calls with another token draw the same images. A token stays cancelled.
///
/// With a group of the caller ([`Parallel::group`](crate::Parallel::group)), each rank asks its own observer. Give a token to each
/// of them, and cancel all. A rank whose own token is not cancelled returns an error that names the rank which ended the call. The
/// group has ended too: later calls need another one.
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
#[derive(Clone, Debug)]
pub struct CancelToken(Option<Arc<AtomicBool>>);

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl CancelToken {
    /// The token of an observer without one. It has no flag, so layers can ask such an observer again and again without an
    /// allocation.
    pub(crate) const NEVER: Self = Self(None);

    /// Creates a token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Ends all calls that have this token or a clone of it, and all later calls with it. It does not wait for their end. The
    /// token of an observer that does not implement [`cancel_token`](crate::Observer::cancel_token) ends nothing.
    pub fn cancel(&self) {
        if let Some(flag) = &self.0 {
            // The flag carries no data, so no other memory has to be ordered with it.
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let flag = self.0.as_ref();
        flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
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
        match self.is_cancelled() && error.is_of_another_rank() {
            true => Error::Cancelled,
            false => error,
        }
    }
}
