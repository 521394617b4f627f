//! `xdit-cli devices`: the processor, and the GPUs of this machine.

use serde_json::{Value, json};
use xdit_kernels::Tier;

use crate::args::cli::DevicesArgs;
use crate::args::device::{self, DeviceSettings};
use crate::report::console;
use crate::report::failure::Failure;
use crate::report::table::aligned;
use crate::run::memory::{self, shown};
use crate::run::session::Session;

/// A GPU of this machine.
#[cfg_attr(
    not(feature = "cuda"),
    allow(dead_code, reason = "GPUs are listed with the feature cuda")
)]
struct Gpu {
    ordinal: u32,
    name: String,
    capability: String,
    memory: u64,
    free: Option<u64>,
    cuda: String,
    unusable: Option<String>,
}

/// Prints what `--device` can name.
///
/// # Errors
/// [`Failure::Stdout`] if nothing can be printed.
pub(crate) fn run(args: &DevicesArgs, session: &Session) -> Result<u8, Failure> {
    session.begin_trace()?;
    let threads = session.threads(&args.threads, None);
    let tier = args.threads.cpu_tier.unwrap_or_else(Tier::detect);
    let (total, available) = memory::of_machine();
    let tiers: Vec<String> = Tier::available().map(|tier| tier.to_string()).collect();
    let gpus = gpus(DeviceSettings {
        local_rank: None,
        tier: None,
        allow_tf32: false,
        environment: &session.environment,
    });
    if session.report.json {
        let (list, reason) = match &gpus {
            Ok(gpus) => (gpus.iter().map(gpu_json).collect(), None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        console::print_json(&json!({
            "cpu": {
                "tier": tier.to_string(),
                "tiers": tiers,
                "threads": threads,
                "memory": total,
                "available": available,
            },
            "gpus": list,
            "no_gpu": reason,
        }))?;
        return Ok(0);
    }
    let or_unknown = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".into(), shown);
    let mut rows = vec![
        ["device", "name", "memory", "free", "details"].map(str::to_owned),
        [
            "cpu".into(),
            tier.to_string(),
            or_unknown(total),
            or_unknown(available),
            xdit_models::quote::counted(threads, "thread"),
        ],
    ];
    rows.extend(gpus.iter().flatten().map(|gpu| {
        let details = match &gpu.unusable {
            Some(reason) => format!("not usable: {reason}"),
            None => format!("capability {}, CUDA {}", gpu.capability, gpu.cuda),
        };
        [
            format!("cuda:{}", gpu.ordinal),
            gpu.name.clone(),
            shown(gpu.memory),
            or_unknown(gpu.free),
            details,
        ]
    }));
    let mut text = aligned(&rows, &[2, 3]);
    text += &format!("instruction tiers of the processor: {}\n", tiers.join(", "));
    if let Err(reason) = &gpus {
        text += &format!("no GPU: {reason}\n");
    }
    console::print(&text)?;
    Ok(0)
}

fn gpu_json(gpu: &Gpu) -> Value {
    json!({
        "device": format!("cuda:{}", gpu.ordinal),
        "name": gpu.name,
        "capability": gpu.capability,
        "memory": gpu.memory,
        "available": gpu.free,
        "cuda_version": gpu.cuda,
        "unusable": gpu.unusable,
    })
}

/// The GPUs that the driver shows, or one line that says why there is none.
#[cfg(feature = "cuda")]
fn gpus(settings: DeviceSettings<'_>) -> Result<Vec<Gpu>, String> {
    let found = device::gpus(settings)?;
    let gpus = found.into_iter().map(|gpu| Gpu {
        ordinal: gpu.ordinal,
        name: gpu.name,
        capability: format!("{}.{}", gpu.capability[0], gpu.capability[1]),
        memory: gpu.memory,
        free: gpu.free_memory,
        cuda: gpu.cuda_version,
        unusable: gpu.unusable,
    });
    Ok(gpus.collect())
}

#[cfg(not(feature = "cuda"))]
fn gpus(_: DeviceSettings<'_>) -> Result<Vec<Gpu>, String> {
    Err(device::WITHOUT.into())
}
