//! The memory of a call on each GPU: the estimate, the check before a run, and what an allocation that failed says.

use xdit_kernels::Device;

use crate::error::{Error, Result};
use crate::pipeline::estimate::MemoryEstimate;
use crate::pipeline::ways_out;

/// The memory of a call on one GPU, computed from the configurations. [`RunPlan::device_memory`](crate::RunPlan) has one for each
/// GPU.
///
/// The ranks of one GPU share its weights: the blocks of their stages and the autoencoder. The GPU of the pipeline also holds the
/// text encoders, and all images at the end. Counted is what tensors and kernels take at a time; the pool of a device keeps some
/// memory beside that for reuse, and gives it back before an allocation fails.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuMemory {
    /// The GPU, as `cuda:0`.
    pub device: String,
    /// The parts.
    pub parts: MemoryEstimate,
    /// The scratch of matrix products.
    pub scratch: u64,
    /// What this process could take on the GPU when the plan was made, if the driver said.
    pub available: Option<u64>,
}

impl GpuMemory {
    /// Returns the largest sum of all memory on the GPU: prompts are encoded, then images are denoised, then decoded. With low
    /// memory, text encoders and the other models are not there at a time.
    #[must_use]
    pub fn total(&self) -> u64 {
        let parts = &self.parts;
        let loaded = parts.transformer.saturating_add(parts.vae);
        let encoders = parts.encoder_weights();
        let [beside_encoders, beside_loaded] = match parts.low_memory {
            true => [0, 0],
            false => [loaded, encoders],
        };
        let drawing = parts.call_after_encoding();
        let encoding = encoders.saturating_add(beside_encoders);
        let encoding = encoding.saturating_add(parts.encoding.saturating_add(parts.embeddings));
        let drawing = loaded.saturating_add(beside_loaded).saturating_add(drawing);
        encoding.max(drawing).saturating_add(self.scratch)
    }

    /// Returns an error if the call needs more on the GPU, besides the weights `spared` there already, than `room` bytes.
    pub(crate) fn check(&self, what: &str, spared: u64, room: Option<u64>) -> Result<()> {
        let bytes = self.total().saturating_sub(spared);
        fits(&self.device, what, bytes, room)
    }
}

/// Returns whether the device has memory of its own.
pub(crate) fn is_gpu(device: &Device) -> bool {
    !device.is_cpu()
}

/// Returns an error if `bytes` for `what` are more than `room` on a GPU.
pub(crate) fn fits(device: &str, what: &str, bytes: u64, room: Option<u64>) -> Result<()> {
    match room {
        Some(available) if bytes > available => Err(Error::DeviceOutOfMemory {
            device: device.into(),
            what: what.into(),
            bytes,
            available: Some(available),
            holders: Box::default(),
            cure: Box::default(),
        }),
        _ => Ok(()),
    }
}

/// Returns the error of a failed allocation as one of this crate. On a GPU it says what holds the memory: the weights there,
/// which `weights_on` returns by component, and the rest. Other errors come back as they are.
pub(crate) fn explained(
    error: Error,
    weights_on: &dyn Fn(&str) -> Vec<(&'static str, u64)>,
    ways: &[&str],
) -> Error {
    use xdit_kernels::Error as Kernel;
    match error {
        // One that the processor refused.
        Error::Kernel(Kernel::OutOfMemory { op, bytes }) => Error::OutOfMemory {
            what: op.into(),
            bytes: bytes as u64,
            available: None,
            cure: String::new(),
        },
        Error::Rank { rank, source } => Error::Rank {
            rank,
            source: Box::new(explained(*source, weights_on, ways)),
        },
        Error::Kernel(Kernel::DeviceOutOfMemory {
            op,
            device,
            bytes,
            free,
            total,
            in_use,
            cached,
        }) => {
            let weights = weights_on(&device);
            let mut holders: Vec<(String, u64)> = weights
                .iter()
                .map(|(name, bytes)| ((*name).to_owned(), *bytes))
                .collect();
            let known = holders
                .iter()
                .fold(0, |sum: u64, (_, n)| sum.saturating_add(*n));
            let name = match &weights[..] {
                [] => "the weights so far",
                _ => "activations",
            };
            holders.push((name.to_owned(), (in_use as u64).saturating_sub(known)));
            holders.push((
                "pieces for reuse that are too small".to_owned(),
                cached as u64,
            ));
            let others = total.saturating_sub(free).saturating_sub(in_use + cached);
            holders.push(("the driver and other programs".to_owned(), others as u64));
            holders.retain(|(_, bytes)| *bytes > 0);
            Error::DeviceOutOfMemory {
                device: device.into(),
                what: op.into(),
                bytes: bytes as u64,
                available: Some(free as u64),
                holders: holders.into(),
                cure: ways_out::cure(ways).into(),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use xdit_kernels::DType;

    use super::*;

    #[test]
    fn an_allocation_that_failed_says_what_holds_the_rest() {
        let failed = || {
            Error::Kernel(xdit_kernels::Error::DeviceOutOfMemory {
                op: "attention",
                device: "cuda:0".into(),
                bytes: 3 << 30,
                free: 1 << 30,
                total: 24 << 30,
                in_use: 20 << 30,
                cached: 1 << 30,
            })
        };
        let weights = [("transformer", 12 << 30), ("VAE", 1 << 30)];
        let ways = ways_out::on_gpu(DType::BF16, false, Some((1, true)));
        let error = explained(failed(), &|_| weights.to_vec(), &ways);
        assert_eq!(
            error.to_string(),
            "out of memory on cuda:0: attention needs 3.0 GiB, 1.0 GiB are available; the rest: transformer 12 GiB, VAE 1.0 GiB, activations \
             7.0 GiB, pieces for reuse that are too small 1.0 GiB, the driver and other programs 2.0 GiB; try \
             `low_memory`, `vae_tiling` or a smaller size"
        );
        assert_eq!(error.category(), crate::ErrorCategory::OutOfMemory);
        let of_rank = Error::Rank {
            rank: "rank 1".into(),
            source: Box::new(failed()),
        };
        let text = explained(of_rank, &|_| Vec::new(), &[]).to_string();
        assert!(
            text.starts_with("rank 1: out of memory on cuda:0: "),
            "{text}"
        );
        assert!(
            text.contains("; the rest: the weights so far 20 GiB, "),
            "{text}"
        );
    }

    #[test]
    fn a_call_that_does_not_fit_is_refused() {
        assert!(fits("cuda:1", "256 × 256", 10, Some(10)).is_ok());
        assert!(fits("cuda:1", "256 × 256", 10, None).is_ok());
        let error = fits("cuda:1", "256 × 256", 11, Some(10)).unwrap_err();
        let told = "out of memory on cuda:1: 256 × 256 needs 11 B, 10 B are available";
        assert_eq!(error.to_string(), told);
    }
}
