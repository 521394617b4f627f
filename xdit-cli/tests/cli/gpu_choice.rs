//! What `-v` tells of the kernels that a GPU gets: by its compute capability and the version of its driver.

use std::collections::BTreeMap;

use vgpu::{Gpu, Schedule};

use crate::program::{command, outcome};
use crate::sd3::golden;

/// The modules of kernels that a picture in `dtype` loads on a GPU of this capability, each with what it was compiled for, as `-v`
/// tells them. Nothing is computed.
fn loaded(capability: u32, driver: &str, dtype: &str) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let words = format!(
        "generate -v --device cuda --prompt circle --height 32 --width 32 --num-inference-steps 1 --max-sequence-length 5 \
         --allow-non-finite --dtype {dtype} --output a.png --model"
    );
    let gpu = Gpu {
        capability,
        ..Gpu::new(Schedule::Eager)
    };
    let mut command = command();
    command
        .args(words.split_whitespace())
        .arg(golden("flux-dev"))
        .current_dir(folder.path());
    let command = gpu.attach(&mut command).unwrap();
    let variables = [("VGPU_SKIP_KERNELS", "1"), ("VGPU_DRIVER", driver)];
    let run = outcome(command.envs(variables).output()).succeeded();
    let told = run.stderr.lines();
    let told = told.filter(|line| line.contains("kernels are loaded"));
    told.map(|line| {
        let field = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
            let value = rest.split_whitespace().next().unwrap();
            value.trim_matches('"').to_owned()
        };
        assert_eq!(field("capability"), capability.to_string(), "{line}");
        let version: u32 = driver.parse().unwrap();
        let version = format!("{}.{}", version / 1000, version % 1000 / 10);
        assert_eq!(field("driver"), version, "{line}");
        (field("module"), field("target"))
    })
    .collect()
}

/// The kernels of attention among them.
fn attention(modules: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let ours = ["flash", "flash.sm_90a", "fma"];
    let modules = modules.iter().map(|(name, target)| (&**name, &**target));
    modules.filter(|(name, _)| ours.contains(name)).collect()
}

#[test]
fn v_tells_which_kernels_a_gpu_gets_and_for_which_capability() {
    let (tensor, fma) = (&[("flash", "sm_80")][..], &[("fma", "sm_80")][..]);
    // Under the causal mask of text there are none for capability 9.0.
    let wgmma = &[("flash", "sm_80"), ("flash.sm_90a", "sm_90a")][..];
    for (capability, driver, dtype, expected) in [
        (80, "12080", "bf16", tensor),
        (90, "12080", "bf16", wgmma),
        (90, "12000", "bf16", wgmma),
        // There are none for capability 9.0 in f32.
        (90, "12080", "f32", fma),
        // The successors of capability 9.0 do not run its kernels.
        (100, "13000", "bf16", tensor),
    ] {
        let modules = loaded(capability, driver, dtype);
        let case = format!("{capability} {driver} {dtype}: {modules:?}");
        let found = attention(&modules);
        // The decoder's attention has one head of more than 128 columns, which `fma` computes.
        let found: Vec<_> = found
            .into_iter()
            .filter(|it| *it != fma[0] || expected == fma)
            .collect();
        assert_eq!(found, expected, "{case}");
        let others = modules.iter().filter(|(name, _)| *name != "flash.sm_90a");
        let others: Vec<_> = others.collect();
        // Modules without kernels of their own for a GPU.
        assert!(others.len() >= 5, "{case}");
        assert!(
            others.iter().all(|(_, target)| *target == "sm_80"),
            "{case}"
        );
    }
}
