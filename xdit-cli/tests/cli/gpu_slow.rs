//! A virtual GPU that takes longer for a step than a rank may go without progress.

use vgpu::{Gpu, Schedule};

use crate::program::{command, outcome};
use crate::sd3::golden;

/// Nothing runs before a rank reads a result, and each operation then takes 24 ms: a step takes far more than
/// `--rank-timeout`, and no operation does.
#[test]
fn a_rank_that_waits_for_a_slow_gpu_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let words = "generate --device cuda --prompt circle --height 64 --width 64 --num-inference-steps 1 --max-sequence-length 5 \
                 --ulysses-degree 2 --rank-timeout 3 --allow-non-finite --json --output a.safetensors --output-type latent --model";
    let mut command = command();
    command
        .args(words.split_whitespace())
        .arg(golden("flux-dev"))
        .current_dir(folder.path());
    let command = Gpu::new(Schedule::Lazy).attach(&mut command).unwrap();
    command
        .env("VGPU_SKIP_KERNELS", "1")
        .env("VGPU_OPERATION_US", "24000");
    let drawn = outcome(command.output()).succeeded().json();
    let seconds = drawn["step_seconds"][0].as_f64().unwrap();
    assert!(
        seconds > 4.0,
        "the step took {seconds} s, which is not slow"
    );
}
