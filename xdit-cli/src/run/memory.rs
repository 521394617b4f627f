//! The peak memory of the process, and the estimated memory of a call.

use serde_json::{Map, Value, json};
use xdit_models::MemoryEstimate;

/// Returns the peak memory of the process in bytes, or `None` if the system does not report it (only Linux does, in
/// `/proc/self/status`: `VmHWM`).
pub(crate) fn peak_bytes() -> Option<u64> {
    kibibytes(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmHWM:",
    )
}

fn kibibytes(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// Returns an estimate as JSON.
pub(crate) fn estimate(memory: &MemoryEstimate) -> Value {
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
        "total": memory.total(),
        "optional_t5": memory.optional_t5(),
    })
}

/// Returns an estimate in three lines: all, the weights, the rest.
pub(crate) fn lines(memory: &MemoryEstimate) -> String {
    let (all, weights) = (shown(memory.total()), shown(memory.weights()));
    let [encoders, transformer, decoder] =
        [memory.encoder_weights(), memory.transformer, memory.vae].map(shown);
    let kept = shown(memory.kept.saturating_add(memory.text_kv));
    let activations = memory.encoding.max(memory.denoising).max(memory.decoding);
    let besides = memory.embeddings.saturating_add(memory.latents);
    let [activations, besides, pictures] = [activations, besides, memory.pictures].map(shown);
    format!(
        "memory of the process: {all} at most, of which weights {weights}\n  \
         text encoders {encoders}, transformer {transformer}, decoder {decoder}\n  \
         activations {activations}, embeddings and latents {besides}, keys and values {kept}, pictures {pictures}\n"
    )
}

/// Returns the saving without T5, if T5 can be left out.
pub(crate) fn without_t5(memory: &MemoryEstimate) -> String {
    let line = |bytes| format!("without T5 (--no-t5): {} less\n", shown(bytes));
    memory.optional_t5().map_or_else(String::new, line)
}

/// `bytes` in the largest binary unit that leaves a whole part: `3.2 GiB`.
pub(crate) fn shown(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024. && unit + 1 < units.len() {
        value /= 1024.;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10. => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
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

    #[test]
    fn units() {
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown(256 << 20), "256 MiB");
        assert_eq!(shown(u64::MAX), "16 EiB");
    }
}
