//! The peak memory of the process, and the estimated memory of a call.

use serde_json::{Map, Value, json};
use xdit_kernels::Device;
pub(crate) use xdit_models::quote::bytes as shown;
use xdit_models::{GpuMemory, MemoryEstimate, RunPlan};

/// Returns the peak memory of the process in bytes, or `None` if the system does not report it (only Linux does, in
/// `/proc/self/status`: `VmHWM`).
pub(crate) fn peak_bytes() -> Option<u64> {
    kibibytes(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmHWM:",
    )
}

/// Returns the most memory of each GPU that this process used at a time: weights, activations and the scratch of kernels. Leaves
/// out the processor.
#[cfg(feature = "cuda")]
pub(crate) fn device_peaks<'d>(
    devices: impl IntoIterator<Item = &'d Device>,
) -> Vec<(String, u64)> {
    let peaks = devices.into_iter().filter_map(|device| {
        let used = device.cuda_memory()?;
        Some((device.to_string(), used.peak as u64))
    });
    peaks.collect()
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn device_peaks<'d>(_: impl IntoIterator<Item = &'d Device>) -> Vec<(String, u64)> {
    Vec::new()
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

/// What a plan takes as `--json` tells it: in the process, and on each GPU if any compute.
pub(crate) fn estimate(plan: &RunPlan) -> Value {
    let mut object = parts(&plan.memory, plan.memory.total(), plan.available_memory());
    object["optional_t5"] = json!(plan.computing_memory().optional_t5());
    let gpus = plan.device_memory.iter().map(|gpu| {
        let mut on_gpu = parts(&gpu.parts, gpu.total(), gpu.available);
        on_gpu["device"] = json!(gpu.device);
        on_gpu["scratch"] = json!(gpu.scratch);
        on_gpu
    });
    object["gpus"] = gpus.collect();
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

/// Whether a plan fits into the memory of this process, and of each GPU if any compute, and what takes how much of it. GPUs that
/// take the same share lines.
pub(crate) fn lines(plan: &RunPlan) -> String {
    let total = plan.memory.total();
    let fits = fits(total, plan.available_memory());
    let of_process = format!(
        "memory of the process at its peak: {}{fits}\n",
        shown(total)
    );
    if plan.device_memory.is_empty() {
        return of_process + &of_parts(&plan.memory);
    }
    let mut groups: Vec<Vec<&GpuMemory>> = Vec::new();
    for gpu in &plan.device_memory {
        let fits = |gpu: &GpuMemory| gpu.available.map(|available| gpu.total() <= available);
        let equal = |other: &GpuMemory| {
            (&other.parts, other.scratch, fits(other)) == (&gpu.parts, gpu.scratch, fits(gpu))
        };
        match groups.iter_mut().find(|group| equal(group[0])) {
            Some(group) => group.push(gpu),
            None => groups.push(vec![gpu]),
        }
    }
    let of_gpus: String = groups.iter().map(|group| of_equal_gpus(group)).collect();
    of_gpus + &of_process
}

/// The lines of GPUs that take the same. The least of what is available on them counts.
fn of_equal_gpus(gpus: &[&GpuMemory]) -> String {
    let first = gpus[0];
    let which = match gpus {
        [one] => format!("memory of {} at its peak", one.device),
        all => format!(
            "memory of each of {}",
            numbered(all.iter().map(|gpu| &*gpu.device))
        ),
    };
    let available = gpus.iter().filter_map(|gpu| gpu.available).min();
    format!(
        "{which}: {}{}\n{}  scratch of matrix products {}\n",
        shown(first.total()),
        fits(first.total(), available),
        of_parts(&first.parts),
        shown(first.scratch),
    )
}

/// Names of GPUs in one word, as `cuda:0,2-7`.
fn numbered<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let number = |name: &str| name.strip_prefix("cuda:")?.parse::<usize>().ok();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in names.filter_map(number) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    format!("cuda:{}", runs.collect::<Vec<_>>().join(","))
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
    fn names_of_many_gpus_are_short() {
        let named = |numbers: &[usize]| {
            let names: Vec<String> = numbers.iter().map(|it| format!("cuda:{it}")).collect();
            numbered(names.iter().map(String::as_str))
        };
        assert_eq!(named(&[1, 2, 3, 4, 5, 6, 7]), "cuda:1-7");
        assert_eq!(named(&[0, 1]), "cuda:0,1");
        assert_eq!(named(&[6, 4, 0, 1, 2]), "cuda:6,4,0-2");
    }

    #[test]
    fn reads_the_tables_of_linux() {
        let table = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t   2048 kB\n";
        assert_eq!(kibibytes(table, "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes(table, "VmRSS:"), None);
        assert_eq!(kibibytes("VmHWM: lots kB", "VmHWM:"), None);
    }
}
