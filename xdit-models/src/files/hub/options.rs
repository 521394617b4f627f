//! The options of downloads.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Endpoint, Token};
use crate::cancel::CancelToken;

/// How long the hub may be silent, as in huggingface_hub.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long another process that downloads the same file may make no progress. It is longer than the time after which that
/// process ends its own download.
const LOCK_TIMEOUT: Duration = Duration::from_secs(120);
/// The bytes per second that a download must exceed.
const SLOWEST: u64 = 1000;
/// The pause before a retry.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// What is brought of a pipeline's weights.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum HubWeights {
    /// All, to draw with.
    #[default]
    Whole,
    /// The header of each file, by a range of its bytes, for [`info::describe`](crate::info::describe). The cache keeps none.
    Headers,
    /// Nothing: for [`Pipeline::plan`](crate::Pipeline::plan), which reads configurations alone.
    None,
}

/// The address of the hub, the cache, and the limits of downloads. `{:?}` shows no secret.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The cache's folder, which holds `models--ORG--NAME` (`HF_HUB_CACHE`).
    pub cache_dir: PathBuf,
    /// The hub's address (`HF_ENDPOINT`).
    pub endpoint: Endpoint,
    /// The user's token (`HF_TOKEN`).
    pub token: Option<Token>,
    /// Whether to use only the cache (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// What to bring of the weights.
    pub weights: HubWeights,
    /// Whether to leave out the T5 of Stable Diffusion 3, for [`ModelSource::without_t5`](crate::ModelSource::without_t5).
    pub without_t5: bool,
    /// How long the hub may take to answer a request about files (`HF_HUB_ETAG_TIMEOUT`).
    pub etag_timeout: Duration,
    /// How long a download may receive no bytes (`HF_HUB_DOWNLOAD_TIMEOUT`).
    pub download_timeout: Duration,
    /// Bytes per second. A download that is slower for three times the longest silence is ended.
    pub slowest: u64,
    /// The pause before a retry. Each further pause is twice as long.
    pub retry_pause: Duration,
    /// How long another process that downloads the same file may make no progress before this one stops waiting for it.
    pub lock_timeout: Duration,
    /// Ends the download. Files that are complete stay in the cache, and the next download resumes the others.
    pub cancel: CancelToken,
}

impl HubOptions {
    /// The public hub without a token, and the cache in `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            endpoint: Endpoint::default(),
            token: None,
            offline: false,
            weights: HubWeights::Whole,
            without_t5: false,
            etag_timeout: TIMEOUT,
            download_timeout: TIMEOUT,
            slowest: SLOWEST,
            retry_pause: RETRY_PAUSE,
            lock_timeout: LOCK_TIMEOUT,
            cancel: CancelToken::default(),
        }
    }
}
