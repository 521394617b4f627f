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
            "num-iterations",
            "ddim-steps",
            "n-steps",
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
            "img-cfg-scale",
            "cfg-guidance",
        ],
        "use --guidance-scale, or for Flux with --negative-prompt --true-cfg-scale",
    ),
    (
        &[
            "sampler",
            "sampling-method",
            "sample-method",
            "sampler-name",
            "schedule",
            "noise-schedule",
            "ddim",
            "dpm-solver",
        ],
        "use --scheduler (HunyuanDiT only; Flux and SD3 have one sampler each)",
    ),
    (
        &[
            "batch",
            "batch-size",
            "batch-count",
            "num-images",
            "num-outputs",
            "num-samples",
            "images-per-prompt",
            "n-iter",
            "n-samples",
        ],
        "use --num-images-per-prompt",
    ),
    (
        &["use-parallel-vae", "vae-parallel-size", "parallel-vae"],
        "ranks decode in parallel by default; --no-parallel-vae turns that off",
    ),
    (
        &[
            "tensor-parallel-degree",
            "tp-degree",
            "tp-size",
            "tensor-parallel-size",
            "fully-shard-degree",
            "fully-shard-components",
            "shard-dit",
            "shard-t5-encoder",
            "memory-efficient-sharding",
            "no-reshard-after-forward",
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
            "ulysses-parallel-degree",
            "ulysses-size",
            "sequence-parallel-degree",
            "dit-parallel-size",
            "parallel",
        ],
        "the degrees say how many ranks there are; use --ulysses-degree",
    ),
    (
        &["ring", "ring-parallel-degree", "ring-size"],
        "use --ring-degree",
    ),
    (
        &[
            "nnodes",
            "node-rank",
            "master-addr",
            "master-port",
            "rdzv-backend",
            "rdzv-endpoint",
            "dist-init-addr",
            "use-ray",
            "ray-world-size",
            "standalone",
        ],
        "ranks are threads of this process and need no launcher; use --ulysses-degree",
    ),
    (
        &[
            "attention-backend",
            "cross-attention-backend",
            "use-fast-attn",
            "use-hybrid-attn-schedule",
            "diffusion-fa",
            "flash-attention",
            "xformers",
            "enable-xformers",
            "window-size",
        ],
        "there is one attention, which is exact",
    ),
    (
        &[
            "use-torch-compile",
            "torch-compile",
            "compile",
            "use-onediff",
        ],
        "nothing is compiled at run time; leave this out",
    ),
    (
        &["profile", "profiler", "perf-dump-path", "timing"],
        "use --trace for a profile, --json for times and memory",
    ),
    (
        &["num-frames", "video-frames", "fps", "task"],
        "images are drawn, no videos",
    ),
    (&["skip-layers", "slg-layers"], "use --skip-guidance-layers"),
    (&["slg-scale"], "use --skip-layer-guidance-scale"),
    (&["skip-layer-start"], "use --skip-layer-guidance-start"),
    (&["skip-layer-end"], "use --skip-layer-guidance-stop"),
    (
        &[
            "vae",
            "taesd",
            "clip-l",
            "clip-g",
            "t5xxl",
            "text-encoder",
            "tokenizer",
            "unet",
            "transformer",
        ],
        "components are not replaced one by one; use --model with a folder in diffusers' layout",
    ),
    (
        &[
            "controlnet",
            "control-net",
            "control-image",
            "ip-adapter",
            "upscale-model",
            "embd-dir",
            "refiner",
        ],
        "images are drawn from text by the pipeline alone; ControlNet, adapters and upscalers are not supported",
    ),
    (
        &[
            "no-safety-checker",
            "safety-checker",
            "disable-safety-checker",
        ],
        "there is no safety checker",
    ),
    (
        &["num-threads", "n-threads", "cpu-threads"],
        "use --threads",
    ),
    (
        &["cpu", "cuda", "gpu", "use-cuda", "device-id", "vae-on-cpu"],
        "use --device",
    ),
    (&["width-px", "w"], "use --width"),
    (&["height-px", "h"], "use --height"),
    (
        &["eta"],
        "each sampler has its own eta, from the pipeline's scheduler_config.json",
    ),
    (&["silent", "no-progress", "no-progress-bar"], "use --quiet"),
    (&["debug", "log-level", "verbosity"], "use -v or -vv"),
    (&["offline", "local-files-only"], "set HF_HUB_OFFLINE=1"),
    (&["token", "hf-token", "use-auth-token"], "set HF_TOKEN"),
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
            "lora-weight-name",
            "lora-apply-mode",
            "loras",
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
            "lowvram",
            "novram",
            "low-vram",
            "medvram",
            "cpu-offload",
        ],
        "use --low-memory",
    ),
    (
        &[
            "output-directory",
            "output-dir",
            "outdir",
            "save-path",
            "save-disk-path",
            "out",
            "outfile",
            "output-file",
            "output-path",
            "filename",
        ],
        "use --output with the name of a file, or of a folder with / at its end",
    ),
    (
        &["neg-prompt", "negative", "uncond", "n-prompt"],
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
            "img-file-path",
            "image-path",
            "ref-image",
            "resize-input-images",
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
            "model-id",
            "model-name",
            "model-dir",
            "repo-id",
            "hf-repo",
        ],
        "use --model with a folder in diffusers' layout or a hub id",
    ),
    (
        &[
            "use-teacache",
            "use-fbcache",
            "use-cache",
            "teacache",
            "cache-mode",
        ],
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
            "use-fp8-comms",
            "fp8",
            "int8",
            "nf4",
            "load-in-4bit",
            "load-in-8bit",
        ],
        "weights are not quantised; --dtype bf16 takes half the memory of f32",
    ),
    (&["cache-dir", "hf-cache"], "use --download-dir"),
    (
        &["prompts", "from-file", "prompt-path", "dataset-path"],
        "use --prompt-file",
    ),
    (
        &["size", "resolution", "image-size", "img-size"],
        "use --height and --width",
    ),
    (
        &["generator", "manual-seed", "rng", "seeds", "random-seed"],
        "use --seed",
    ),
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
