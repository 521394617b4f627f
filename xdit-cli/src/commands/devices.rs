//! `xdit-cli devices`: the processor, and the GPUs of this machine.

use serde_json::json;
use xdit_kernels::Tier;

use crate::args::cli::DevicesArgs;
use crate::args::device::DeviceSettings;
use crate::report::console;
use crate::report::failure::Failure;
use crate::report::table::aligned;
use crate::run::gpus::{self, Gpu};
use crate::run::memory::{self, shown};
use crate::run::session::Session;

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
    let gpus = gpus::list(DeviceSettings {
        local_rank: None,
        tier: None,
        allow_tf32: false,
        environment: &session.environment,
    });
    if session.report.json {
        let (list, reason) = match &gpus {
            Ok(gpus) => (gpus.iter().map(Gpu::json).collect(), None),
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
