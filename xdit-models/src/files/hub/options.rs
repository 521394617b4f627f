//! Where the hub is and how to deal with it.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Endpoint, Token};

/// How long the hub may be silent, as in huggingface_hub.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long another process that downloads the same file may bring nothing: longer than it takes to give up itself.
const LOCK_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes a second that a download must bring.
const SLOWEST: u64 = 1000;
/// The pause before a request is made again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Where the hub is and how to deal with it. Shown by `{:?}` without a secret.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The cache's folder, which holds `models--ORG--NAME` (`HF_HUB_CACHE`).
    pub cache_dir: PathBuf,
    /// The hub's address (`HF_ENDPOINT`).
    pub endpoint: Endpoint,
    /// The user's token (`HF_TOKEN`).
    pub token: Option<Token>,
    /// Whether to use the cache alone (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Whether to leave the weights where they are: for [`Pipeline::plan`](crate::Pipeline::plan), which reads none.
    pub configurations_only: bool,
    /// Whether to leave the T5 of Stable Diffusion 3 where it is, for
    /// [`ModelSource::without_t5`](crate::ModelSource::without_t5).
    pub without_t5: bool,
    /// How long the hub may be silent when it is asked about files (`HF_HUB_ETAG_TIMEOUT`).
    pub etag_timeout: Duration,
    /// How long a download may bring nothing (`HF_HUB_DOWNLOAD_TIMEOUT`).
    pub download_timeout: Duration,
    /// Bytes a second: what arrives more slowly, over three times the longest silence, is given up.
    pub slowest: u64,
    /// The pause before a request is made again; each further one is twice as long.
    pub retry_pause: Duration,
    /// How long another process that downloads the same file may bring nothing before nobody waits for it any longer.
    pub lock_timeout: Duration,
}

impl HubOptions {
    /// The public hub without a token, cached in `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            endpoint: Endpoint::default(),
            token: None,
            offline: false,
            configurations_only: false,
            without_t5: false,
            etag_timeout: TIMEOUT,
            download_timeout: TIMEOUT,
            slowest: SLOWEST,
            retry_pause: RETRY_PAUSE,
            lock_timeout: LOCK_TIMEOUT,
        }
    }
}
