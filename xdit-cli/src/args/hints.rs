//! What other programs call a flag, and what it is called here: diffusers' scripts, stable-diffusion.cpp, xDiT and its relatives.

/// Names of flags that there are not, without `--` and with `-` between words, and what to use instead.
const HINTS: &[(&[&str], &str)] = &[
    (
        &[
            "steps",
            "num-steps",
            "sampling-steps",
            "inference-steps",
            "sample-steps",
        ],
        "use --num-inference-steps",
    ),
    (
        &[
            "cfg-scale",
            "cfg",
            "scale",
            "guidance",
            "distilled-guidance",
        ],
        "use --guidance-scale, or for Flux with --negative-prompt --true-cfg-scale",
    ),
    (
        &[
            "sampler",
            "sampling-method",
            "sample-method",
            "sampler-name",
        ],
        "use --scheduler (HunyuanDiT only; Flux and SD3 have one sampler each)",
    ),
    (
        &[
            "batch",
            "batch-size",
            "batch-count",
            "num-images",
            "n-iter",
            "n-samples",
        ],
        "use --num-images-per-prompt",
    ),
    (
        &["use-parallel-vae", "vae-parallel-size"],
        "ranks decode in parallel by default; --no-parallel-vae turns that off",
    ),
    (
        &[
            "tensor-parallel-degree",
            "tp-degree",
            "tp-size",
            "fully-shard-degree",
        ],
        "weights are not split; ranks share an image by --ulysses-degree, --ring-degree or --pipefusion-parallel-degree",
    ),
    (
        &[
            "sp-degree",
            "usp",
            "ulysses",
            "num-gpus",
            "nproc-per-node",
            "world-size",
        ],
        "the degrees say how many ranks there are; use --ulysses-degree",
    ),
    (&["ring"], "use --ring-degree"),
    (
        &[
            "enable-pipefusion",
            "pipeline-parallel-size",
            "pp-size",
            "pp-degree",
        ],
        "use --pipefusion-parallel-degree",
    ),
    (&["pipefusion-warmup-steps"], "use --warmup-steps"),
    (
        &["enable-cfg-parallel", "cfg-parallel-size"],
        "use --use-cfg-parallel or --cfg-degree 2",
    ),
    (
        &[
            "lora",
            "lora-path",
            "lora-weights",
            "lora-model-dir",
            "lora-scale",
        ],
        "LoRA is not supported; merge it into the model first",
    ),
    (&["enable-tiling", "tiling"], "use --vae-tiling"),
    (
        &["enable-slicing", "vae-slicing"],
        "images are decoded one at a time anyway",
    ),
    (
        &[
            "enable-model-cpu-offload",
            "enable-sequential-cpu-offload",
            "offload-to-cpu",
            "clip-on-cpu",
        ],
        "use --low-memory",
    ),
    (
        &[
            "output-directory",
            "output-dir",
            "outdir",
            "save-path",
            "out",
        ],
        "use --output with the name of a file, or of a folder with / at its end",
    ),
    (
        &["neg-prompt", "negative", "uncond"],
        "use --negative-prompt",
    ),
    (
        &[
            "image",
            "init-img",
            "init-image",
            "input-images",
            "strength",
            "mask",
            "mask-image",
        ],
        "images are drawn from text only",
    ),
    (
        &[
            "ckpt",
            "checkpoint",
            "model-path",
            "diffusion-model",
            "pretrained-model-name-or-path",
        ],
        "use --model with a folder in diffusers' layout or a hub id",
    ),
    (
        &["use-teacache", "use-fbcache", "cache-mode"],
        "steps are not skipped; --warmup-steps and --max-drift say which steps PipeFusion runs whole",
    ),
    (
        &["type", "torch-dtype", "precision", "fp16", "bf16", "half"],
        "use --dtype f32, bf16 or f16",
    ),
    (
        &[
            "quantize",
            "use-fp8-t5-encoder",
            "use-fp8-gemms",
            "use-int8-gemms",
            "use-fp4-gemms",
        ],
        "weights are not quantised; --dtype bf16 takes half the memory of f32",
    ),
    (&["cache-dir", "hf-cache"], "use --download-dir"),
    (
        &["prompts", "from-file", "prompt-path", "dataset-path"],
        "use --prompt-file",
    ),
    (&["size", "resolution"], "use --height and --width"),
    (&["generator", "manual-seed", "rng"], "use --seed"),
];

/// What to use instead of the flag `word`, such as `--steps` or `--steps=3`.
pub(crate) fn instead_of(word: &str) -> Option<&'static str> {
    let name = word.trim_start_matches('-').split('=').next()?;
    let name = name.to_ascii_lowercase().replace('_', "-");
    let known = HINTS
        .iter()
        .find(|(names, _)| names.contains(&name.as_str()));
    known.map(|(_, hint)| *hint)
}

/// The flags that a hint names, without `--`.
pub(crate) fn flags(hint: &str) -> impl Iterator<Item = &str> {
    hint.split(|c: char| c.is_whitespace() || ",;)".contains(c))
        .filter_map(|word| word.strip_prefix("--"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn hints_name_flags_that_there_are_for_those_that_there_are_not() {
        let command = Cli::command();
        let generate = command.find_subcommand("generate").unwrap();
        let known: Vec<&str> = generate
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .collect();
        for (names, hint) in HINTS {
            for name in *names {
                assert!(!known.contains(name), "--{name} is a flag");
                assert_eq!(
                    instead_of(&format!("--{}=3", name.replace('-', "_"))),
                    Some(*hint)
                );
            }
            for flag in flags(hint) {
                assert!(known.contains(&flag), "{hint}: there is no --{flag}");
            }
        }
        assert_eq!(instead_of("--no-such-flag"), None);
    }
}
