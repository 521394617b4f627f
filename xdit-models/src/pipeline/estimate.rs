//! The estimate of a call's memory. Plans show it, and runs are checked against it.

use crate::error::Result;
use crate::files::source::OPTIONAL_T5;
use crate::pipeline::memory_limit;

/// The memory of a call in this process, computed from the configurations. [`RunPlan::memory`](crate::RunPlan) contains it.
/// [`Pipeline::load`](crate::Pipeline::load) and [`generate`](crate::Pipeline::generate) compare it with the available memory.
///
/// All values are in bytes. Ranks that are threads share one copy of the weights. All other values are the sum over these
/// ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// The weights of each text encoder in the compute dtype, by the name of the component.
    pub text_encoders: Vec<(&'static str, u64)>,
    /// The weights of the transformer, or of one stage if this process is one stage.
    pub transformer: u64,
    /// The weights of the autoencoder's decoder.
    pub vae: u64,
    /// Activations of the text encoders.
    pub encoding: u64,
    /// The embeddings of the prompts, for each image and branch of guidance.
    pub embeddings: u64,
    /// Latents, noise and predictions.
    pub latents: u64,
    /// Keys and values that stages keep for other patches.
    pub kept: u64,
    /// Keys and values of the text for blocks with cross-attention. Every rank computes them once per image.
    pub text_kv: u64,
    /// Activations of the transformer.
    pub denoising: u64,
    /// Activations of the decoder.
    pub decoding: u64,
    /// The images, as f32 and as 8 bits.
    pub pictures: u64,
    /// Whether the text encoders are dropped before the other weights are loaded.
    pub low_memory: bool,
    /// The number of ranks and compute threads that the call starts.
    pub(crate) threads: u64,
}

impl MemoryEstimate {
    /// Returns the weights of all text encoders.
    #[must_use]
    pub fn encoder_weights(&self) -> u64 {
        sum(self.text_encoders.iter().map(|(_, bytes)| *bytes))
    }

    /// Returns the weights that [`ModelSource::without_t5`](crate::ModelSource::without_t5) saves, or `None` if the pipeline
    /// has no optional T5.
    #[must_use]
    pub fn optional_t5(&self) -> Option<u64> {
        let mut encoders = self.text_encoders.iter();
        let found = encoders.find(|(name, _)| OPTIONAL_T5.contains(name));
        found.map(|(_, bytes)| *bytes)
    }

    /// Returns the largest sum of weights that are in memory at the same time.
    #[must_use]
    pub fn weights(&self) -> u64 {
        let loaded = self.transformer.saturating_add(self.vae);
        match self.low_memory {
            true => loaded.max(self.encoder_weights()),
            false => loaded.saturating_add(self.encoder_weights()),
        }
    }

    /// Returns the largest sum of memory besides the weights. Phases follow each other; embeddings and latents exist in all of
    /// them.
    #[must_use]
    pub fn call(&self) -> u64 {
        let encoding = sum([self.embeddings, self.latents, self.encoding]);
        encoding.max(self.call_after_encoding())
    }

    /// Returns the same without the text encoders' activations.
    pub(crate) fn call_after_encoding(&self) -> u64 {
        let denoising = sum([self.kept, self.text_kv, self.denoising]);
        let decoding = sum([self.decoding, self.pictures]);
        sum([self.embeddings, self.latents, denoising.max(decoding)])
    }

    /// Returns the largest sum of all memory.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights().saturating_add(self.call())
    }

    /// Returns an error if the call needs more, besides the memory that is `spared` already, than `limit` or than the available
    /// memory.
    pub(crate) fn check(&self, what: &str, spared: u64, limit: Option<u64>) -> Result<()> {
        let bytes = self.total().saturating_sub(spared);
        memory_limit::check(what, bytes, limit, self.threads)
    }
}

fn sum(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let mut estimate = MemoryEstimate {
            text_encoders: vec![("text_encoder", 100), ("text_encoder_2", 1000)],
            transformer: 500,
            vae: 50,
            encoding: 7,
            embeddings: 1,
            latents: 2,
            kept: 10,
            text_kv: 20,
            denoising: 40,
            decoding: 60,
            pictures: 5,
            ..MemoryEstimate::default()
        };
        assert_eq!(estimate.weights(), 1650);
        assert_eq!(estimate.call(), 3 + 70);
        assert_eq!(estimate.total(), 1650 + 73);
        estimate.low_memory = true;
        assert_eq!(estimate.weights(), 1100);
        assert!(estimate.check("a test", 1100, Some(73)).is_ok());
        let error = estimate.check("a test", 1100, Some(72)).unwrap_err();
        assert!(error.to_string().contains("73 B"), "{error}");
        estimate.decoding = u64::MAX;
        assert_eq!(estimate.total(), u64::MAX);
    }
}
