//! Peak memory: one copy of the weights, in the compute dtype.
#![cfg(target_os = "linux")]

use std::path::Path;

use crate::flux_folder::wide;
use crate::program::run;

/// Runs a pipeline whose files hold `stored` in the dtype `computed`; its peak must be what the README promises.
fn holds_weights_once(times: u64, stored: &str, computed: &str) {
    let folder = tempfile::tempdir().unwrap();
    let weights = wide(&folder.path().join("model"), times, stored);
    let size: u64 = if computed == "f32" { 4 } else { 2 };
    let words = "generate --prompt circle --model model --height 64 --width 64 --num-inference-steps 1 \
                 --max-sequence-length 24 --output a.png --json --dtype";
    let words = words.split_whitespace().chain([computed]);
    let json = run(folder.path(), words).succeeded().json();
    let peak = json["peak_memory_bytes"].as_u64().unwrap();
    // 24 text tokens and 16 image tokens, 8 rows of the width each; the decoder takes less.
    let activations = (24 + 16) * 8 * 128 * times * size;
    let bytes = weights * size;
    assert!(bytes > 150 << 20, "the program itself would count: {bytes}");
    println!(
        "{stored} as {computed}: {bytes} bytes of weights, peak {peak} ({:.3})",
        peak as f64 / bytes as f64
    );
    // 1.25 is the promise of the README; what the program itself takes is within it.
    assert!(
        peak <= bytes * 5 / 4 + activations,
        "{stored} as {computed}: {peak} bytes at the peak for {bytes} of weights"
    );
}

#[test]
fn bf16_weights_in_bf16() {
    holds_weights_once(6, "BF16", "bf16");
}

#[test]
fn f32_weights_in_f32() {
    holds_weights_once(4, "F32", "f32");
}

/// The peak of a run of this pipeline in f32.
fn peak(folder: &Path, more: &[&str]) -> u64 {
    let words = "generate --prompt circle --model model --height 64 --width 64 --num-inference-steps 1 \
                 --max-sequence-length 24 --output a.png --json";
    let words = words.split_whitespace().chain(more.iter().copied());
    let json = run(folder, words).succeeded().json();
    json["peak_memory_bytes"].as_u64().unwrap()
}

#[test]
fn ranks_share_the_weights_and_encoders_can_be_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let weights = 4 * wide(&folder.path().join("model"), 4, "F32");
    let one = peak(folder.path(), &[]);
    let four = peak(
        folder.path(),
        &["--ulysses-degree", "2", "--ring-degree", "2"],
    );
    // 40 tokens, 8 rows of the width each, of f32; cut over the ranks.
    let activations = 40 * 8 * 512 * 4;
    println!("{weights} bytes of weights; one rank {one}, four ranks {four}");
    assert!(
        four <= one * 115 / 100 + activations,
        "{four} bytes on four ranks, {one} on one"
    );

    let low = peak(folder.path(), &["--low-memory"]);
    let file = folder.path().join("model/text_encoder_2/model.safetensors");
    let encoder = std::fs::metadata(file).unwrap().len();
    println!("low memory {low}, of which T5 would be {encoder}");
    // The encoder's pages go back to the system when it is dropped; a fifth is left to the allocator, and to
    // what a peak moves by from run to run (a megabyte).
    assert!(
        low <= one - encoder * 8 / 10,
        "{low} bytes with --low-memory, {one} without, {encoder} of them T5's"
    );
}

/// The mapped file is twice as large as what is held.
#[test]
fn f32_weights_in_bf16() {
    holds_weights_once(6, "F32", "bf16");
}

/// What `plan` tells before anything is loaded is enough for what `generate` then takes, and not far from it.
#[test]
fn the_plan_tells_the_peak() {
    let folder = tempfile::tempdir().unwrap();
    wide(&folder.path().join("model"), 4, "F32");
    let call = "--model model --max-sequence-length 24 --num-inference-steps 1 --json";
    // What the program itself takes, its allocator's gaps included.
    const PROGRAM: u64 = 64 << 20;
    for more in [
        "--height 64 --width 64",
        "--height 512 --width 512",
        "--height 512 --width 512 --ulysses-degree 2 --pipefusion-parallel-degree 2",
        "--height 64 --width 64 --num-images-per-prompt 24",
        "--height 64 --width 64 --low-memory",
    ] {
        let words = |command: &str| {
            let words = format!("{command} {call} {more}");
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            run(folder.path(), words).succeeded().json()
        };
        let told = words("plan")["memory"]["total"].as_u64().unwrap();
        let done = words("generate --prompt circle --output a.png");
        let peak = done["peak_memory_bytes"].as_u64().unwrap();
        println!("{more}: {told} bytes told, peak {peak}");
        assert!(peak <= told + PROGRAM, "{more}: {told} told, peak {peak}");
        assert!(told <= peak * 3 / 2, "{more}: {told} told, peak {peak}");
    }
}
