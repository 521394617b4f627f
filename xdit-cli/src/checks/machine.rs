//! The processor, the memory, and all findings of the machine.

use std::fs;

use serde_json::json;
use xdit_kernels::Tier;
use xdit_models::quote;

use crate::checks::finding::Finding;
use crate::checks::{gpus, models, programs};
use crate::run::environment::Environment;
use crate::run::memory::{self, shown};

/// Looks at every part of this machine.
pub(crate) fn findings(environment: &Environment) -> Vec<Finding> {
    let gpus = gpus::look(environment);
    let mut all = vec![processor(), memory(environment), models::look(environment)];
    all.extend(threads(environment));
    all.push(gpus);
    all.extend(programs::look(environment));
    all
}

/// The cores that this process may use, and the instructions that it will use.
fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|text| count_of_ranges(&text))
        .filter(|machine| *machine > cores);
    let tier = Tier::detect();
    let tiers: Vec<String> = Tier::available().map(|tier| tier.to_string()).collect();
    let of = machine.map_or_else(String::new, |all| {
        format!(" (of {all}: an affinity or a control group limits this process)")
    });
    let others: Vec<&str> = tiers.iter().map(String::as_str).collect();
    let others: Vec<&str> = others
        .into_iter()
        .filter(|it| *it != tier.to_string())
        .collect();
    let also = match others.is_empty() {
        true => String::new(),
        false => format!(" (also {})", others.join(", ")),
    };
    let found = format!("{}{of}, tier {tier}{also}", quote::counted(cores, "core"));
    let data = json!({
        "cores": cores,
        "cores_of_machine": machine.unwrap_or(cores),
        "tier": tier.to_string(),
        "tiers": tiers,
    });
    match tier {
        Tier::Portable => Finding::lacks(
            "processor",
            found,
            "the kernels are fast with AVX2, AVX-512 or NEON: use a processor that has one of them",
            data,
        ),
        _ => Finding::fine("processor", found, data),
    }
}

/// The number of CPUs in a list of the kernel, such as `0-3,8`.
fn count_of_ranges(list: &str) -> Option<usize> {
    let count = |range: &str| match range.split_once('-') {
        Some((first, last)) => {
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        }
        None => range.parse::<usize>().ok().map(|_| 1),
    };
    list.trim().split(',').map(count).sum()
}

/// The memory of the machine, and what limits leave to this process.
fn memory(environment: &Environment) -> Finding {
    let (total, available) = memory::of_machine();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = environment.threads().unwrap_or(cores);
    let room = xdit_models::available_memory(threads as u64);
    let data = json!({"total": total, "available": available, "available_to_process": room});
    let (Some(total), Some(available)) = (total, available) else {
        return Finding::fine("memory", "this system does not report it", data);
    };
    let found = format!("{}, {} available", shown(total), shown(available));
    // The two are read at different moments.
    match room.filter(|room| *room < available - available / 16) {
        Some(room) => {
            let limited = format!("{found}; limits leave {} to this process", shown(room));
            match room < LEAST {
                true => Finding::lacks("memory", limited, TOO_LITTLE, data),
                false => Finding::fine("memory", limited, data),
            }
        }
        None if available < LEAST => Finding::lacks("memory", found, TOO_LITTLE, data),
        None => Finding::fine("memory", found, data),
    }
}

/// What the demo takes, roughly: with less, nothing can be drawn.
const LEAST: u64 = 256 << 20;
const TOO_LITTLE: &str =
    "end other programs, or raise the limit (ulimit -v, ulimit -d, the control group's memory.max)";

/// A number of threads in the environment that is none.
fn threads(environment: &Environment) -> Option<Finding> {
    let complaints = environment.complaints();
    let complaint = complaints.first()?.strip_prefix("warning: ")?.to_owned();
    let name = complaint.split('=').next().unwrap_or_default();
    let cure = format!("set {name} to a number, or unset it");
    Some(Finding::lacks("threads", complaint, cure, json!(null)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::finding::CheckState;

    #[test]
    fn ranges_of_cpus() {
        assert_eq!(count_of_ranges("0-63\n"), Some(64));
        assert_eq!(count_of_ranges("0,2-3"), Some(3));
        for odd in ["", "3-1", "a", "0-18446744073709551615"] {
            assert_eq!(count_of_ranges(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_number_of_threads_that_is_none_is_named() {
        let environment = |value: &'static str| {
            Environment::with(move |name| (name == "OMP_NUM_THREADS").then(|| value.to_owned()))
        };
        assert!(threads(&environment("4")).is_none());
        let finding = threads(&environment("many")).unwrap();
        assert_eq!(finding.state, CheckState::Lacks);
        assert!(finding.cure.unwrap().contains("OMP_NUM_THREADS"));
    }
}
