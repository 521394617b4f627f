//! Where the hub is and how to deal with it.

use std::path::PathBuf;
use std::time::Duration;

/// The hub itself.
pub const HUB_ENDPOINT: &str = "https://huggingface.co";
/// How long the hub may be silent, as in huggingface_hub.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the hub is and how to deal with it.
#[derive(Clone)]
pub struct HubOptions {
    /// The cache's folder, which holds `models--ORG--NAME` (`HF_HUB_CACHE`).
    pub cache_dir: PathBuf,
    /// The hub's address (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The user's token (`HF_TOKEN`).
    pub token: Option<String>,
    /// Whether to use the cache alone (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Whether to leave the weights where they are: for [`Pipeline::plan`](crate::Pipeline::plan), which reads none.
    pub configurations_only: bool,
    /// How long the hub may be silent when it is asked about files (`HF_HUB_ETAG_TIMEOUT`).
    pub etag_timeout: Duration,
    /// How long a download may bring nothing (`HF_HUB_DOWNLOAD_TIMEOUT`).
    pub download_timeout: Duration,
}

impl HubOptions {
    /// The public hub without a token, cached in `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            endpoint: HUB_ENDPOINT.into(),
            token: None,
            offline: false,
            configurations_only: false,
            etag_timeout: TIMEOUT,
            download_timeout: TIMEOUT,
        }
    }
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("configurations_only", &self.configurations_only)
            .field("etag_timeout", &self.etag_timeout)
            .field("download_timeout", &self.download_timeout)
            .finish()
    }
}
