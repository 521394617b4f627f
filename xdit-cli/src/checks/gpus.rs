//! The GPUs and their driver.

use std::fs;

use serde_json::{Value, json};

use crate::args::device::DeviceSettings;
use crate::checks::finding::Finding;
use crate::run::environment::Environment;
use crate::run::gpus::{self, Gpu};
use crate::run::memory::shown;

/// The most groups of equal GPUs that are told.
const MOST: usize = 3;

/// The GPUs that the driver shows to this process.
pub(super) fn look(environment: &Environment) -> Finding {
    let listed = gpus::list(DeviceSettings {
        local_rank: None,
        tier: None,
        allow_tf32: false,
        environment,
    });
    of(listed, driver())
}

fn of(listed: Result<Vec<Gpu>, String>, driver: Option<String>) -> Finding {
    let data = |gpus: &[Gpu], reason: Option<&str>| -> Value {
        let gpus: Vec<Value> = gpus.iter().map(Gpu::json).collect();
        json!({"driver": driver, "gpus": gpus, "no_gpu": reason})
    };
    let gpus = match listed {
        Ok(gpus) if !gpus.is_empty() => gpus,
        Ok(_) => {
            let reason = "the driver shows no GPU";
            let cure = "see CUDA_VISIBLE_DEVICES; without a GPU the processor computes";
            return Finding::lacks("GPU", reason, cure, data(&[], Some(reason)));
        }
        Err(reason) => {
            let cure = "install NVIDIA's driver 525 or newer; without a GPU the processor computes";
            let data = data(&[], Some(&reason));
            return Finding::lacks("GPU", reason, cure, data);
        }
    };
    let data = data(&gpus, None);
    let mut groups = grouped(&gpus);
    let more = groups.len().saturating_sub(MOST);
    groups.truncate(MOST);
    let mut found = groups.join("; ");
    if more > 0 {
        found += &format!("; {more} more kinds (xdit-cli devices)");
    }
    if let Some(driver) = &driver {
        found += &format!("; driver {driver}");
    }
    match gpus
        .iter()
        .find_map(|gpu| Some((gpu.ordinal, gpu.unusable.as_ref()?)))
    {
        Some((ordinal, reason)) => {
            let cure = format!("cuda:{ordinal}: {reason}");
            Finding::lacks("GPU", found, cure, data)
        }
        None => Finding::fine("GPU", found, data),
    }
}

/// A text for each group of neighbours that differ in nothing but their number and free memory.
fn grouped(gpus: &[Gpu]) -> Vec<String> {
    let is_equal = |a: &Gpu, b: &Gpu| {
        (&a.name, a.memory, &a.capability, &a.unusable)
            == (&b.name, b.memory, &b.capability, &b.unusable)
    };
    let text = |group: &[Gpu]| {
        let first = &group[0];
        let numbers = match group {
            [one] => format!("cuda:{}", one.ordinal),
            all => format!("cuda:{}–{}", first.ordinal, all[all.len() - 1].ordinal),
        };
        let usable = match first.unusable {
            Some(_) => " (not usable)",
            None => "",
        };
        let free = group.iter().filter_map(|gpu| gpu.free).min();
        let free = free.map_or_else(String::new, |free| format!(", {} free", shown(free)));
        format!(
            "{numbers}{usable} {}, {}{free}, capability {}, CUDA {}",
            first.name,
            shown(first.memory),
            first.capability,
            first.cuda
        )
    };
    gpus.chunk_by(is_equal).map(text).collect()
}

/// The version of the driver that the kernel has loaded, such as 550.54.15.
fn driver() -> Option<String> {
    version(&fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

fn version(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_whitespace();
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    words.find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::finding::CheckState;

    fn gpu(ordinal: u32) -> Gpu {
        Gpu {
            ordinal,
            name: "NVIDIA H200".into(),
            capability: "9.0".into(),
            memory: 140 << 30,
            free: Some(139 << 30),
            cuda: "12.8".into(),
            unusable: None,
        }
    }

    #[test]
    fn equal_gpus_share_a_line() {
        let finding = of(Ok((0..8).map(gpu).collect()), Some("570.86.15".into()));
        assert_eq!(finding.state, CheckState::Fine);
        assert_eq!(
            finding.found,
            "cuda:0–7 NVIDIA H200, 140 GiB, 139 GiB free, capability 9.0, CUDA 12.8; driver 570.86.15"
        );
        assert_eq!(finding.data["gpus"].as_array().map(Vec::len), Some(8));
    }

    #[test]
    fn a_gpu_that_cannot_be_used_says_why() {
        let old = Gpu {
            unusable: Some("the kernels need compute capability 8.0 or more".into()),
            ..gpu(1)
        };
        let finding = of(Ok(vec![gpu(0), old]), None);
        assert_eq!(finding.state, CheckState::Lacks);
        let cure = finding.cure.unwrap();
        assert_eq!(
            cure,
            "cuda:1: the kernels need compute capability 8.0 or more"
        );
        for listed in [Ok(vec![]), Err("no driver".to_owned())] {
            assert!(of(listed, None).cure.is_some());
        }
    }

    #[test]
    fn versions_of_drivers() {
        for (text, expected) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2",
                Some("550.54.15"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build",
                Some("570.86.15"),
            ),
            ("", None),
        ] {
            assert_eq!(version(text).as_deref(), expected);
        }
    }
}
