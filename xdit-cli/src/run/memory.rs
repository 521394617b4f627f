//! The peak memory of the process, and the estimated memory of a call.

use serde_json::{Map, Value, json};
use xdit_kernels::Device;
pub(crate) use xdit_models::quote::bytes as shown;
use xdit_models::{MemoryEstimate, RunPlan};

/// Returns the peak memory of the process in bytes, or `None` if the system does not report it (only Linux does, in
/// `/proc/self/status`: `VmHWM`).
pub(crate) fn peak_bytes() -> Option<u64> {
    kibibytes(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmHWM:",
    )
}

/// Returns the most memory of a GPU that this process used at a time: weights, activations and the scratch of kernels. `None` for
/// the processor.
#[cfg(feature = "cuda")]
pub(crate) fn peak_device_bytes(device: &Device) -> Option<u64> {
    Some(device.cuda_memory()?.peak as u64)
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn peak_device_bytes(_: &Device) -> Option<u64> {
    None
}

/// Returns the memory of the machine and what of it is available, in bytes, if the system reports it (only Linux does).
pub(crate) fn of_machine() -> (Option<u64>, Option<u64>) {
    let table = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name| kibibytes(&table, name);
    (of("MemTotal:"), of("MemAvailable:"))
}

fn kibibytes(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// What a plan takes as `--json` tells it: in the process, and on its GPU if one computes.
pub(crate) fn estimate(plan: &RunPlan) -> Value {
    let mut object = parts(&plan.memory, plan.memory.total(), plan.available_memory());
    object["optional_t5"] = json!(plan.computing_memory().optional_t5());
    if let Some(device) = &plan.device_memory {
        let mut on_device = parts(&device.parts, device.total(), device.available);
        on_device["device"] = json!(device.device);
        on_device["scratch"] = json!(device.scratch);
        object["gpu"] = on_device;
    }
    object
}

fn parts(memory: &MemoryEstimate, total: u64, available: Option<u64>) -> Value {
    let encoders = memory.text_encoders.iter();
    let encoders = Map::from_iter(encoders.map(|(name, bytes)| ((*name).to_owned(), json!(bytes))));
    json!({
        "weights": {"text_encoders": encoders, "transformer": memory.transformer, "vae": memory.vae},
        "weights_at_once": memory.weights(),
        "embeddings": memory.embeddings,
        "latents": memory.latents,
        "keys_and_values": {"other_patches": memory.kept, "text": memory.text_kv},
        "activations": {
            "encode": memory.encoding,
            "denoise": memory.denoising,
            "decode": memory.decoding,
        },
        "pictures": memory.pictures,
        "total": total,
        "available": available,
        "fits": available.map(|bytes| total <= bytes),
    })
}

/// Whether a plan fits into the memory of this process, and of its GPU if one computes, and what takes how much of it.
pub(crate) fn lines(plan: &RunPlan) -> String {
    let total = plan.memory.total();
    let fits = fits(total, plan.available_memory());
    let Some(device) = &plan.device_memory else {
        let more = of_parts(&plan.memory);
        return format!(
            "memory of the process at its peak: {}{fits}\n{more}",
            shown(total)
        );
    };
    let of_device = device.total();
    format!(
        "memory of {} at its peak: {}{}\n{}  scratch of matrix products {}\n\
         memory of the process at its peak: {}{fits}\n",
        device.device,
        shown(of_device),
        self::fits(of_device, device.available),
        of_parts(&device.parts),
        shown(device.scratch),
        shown(total)
    )
}

fn fits(total: u64, available: Option<u64>) -> String {
    match available {
        Some(available) if total <= available => {
            format!(" of {} available: fits", shown(available))
        }
        Some(available) => format!(" of {} available: DOES NOT FIT", shown(available)),
        None => String::new(),
    }
}

fn of_parts(memory: &MemoryEstimate) -> String {
    let [encoders, transformer, decoder] =
        [memory.encoder_weights(), memory.transformer, memory.vae].map(shown);
    let kept = shown(memory.kept.saturating_add(memory.text_kv));
    let activations = memory.encoding.max(memory.denoising).max(memory.decoding);
    let besides = memory.embeddings.saturating_add(memory.latents);
    let [activations, besides, pictures] = [activations, besides, memory.pictures].map(shown);
    format!(
        "  weights {}: text encoders {encoders}, transformer {transformer}, VAE {decoder}\n  \
         activations {activations}, embeddings and latents {besides}\n  \
         keys and values {kept}, images {pictures}\n",
        shown(memory.weights()),
    )
}

/// Returns the saving without T5, if T5 can be left out.
pub(crate) fn without_t5(memory: &MemoryEstimate) -> String {
    let line = |bytes| format!("without T5 (--no-t5): {} less\n", shown(bytes));
    memory.optional_t5().map_or_else(String::new, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_tables_of_linux() {
        let table = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t   2048 kB\n";
        assert_eq!(kibibytes(table, "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes(table, "VmRSS:"), None);
        assert_eq!(kibibytes("VmHWM: lots kB", "VmHWM:"), None);
    }
}
