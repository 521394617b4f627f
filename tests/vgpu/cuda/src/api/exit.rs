//! The end of the process, as of a sanitizer: what is queued runs, leaks and numbers are told, and the exit status changes.

use crate::api::calls::counts;
use crate::engine::engine;
use crate::records::Origin;
use crate::state::{State, Totals};

impl State {
    /// What a program did not give back of a device; of the host where `device` is `None`.
    pub(crate) fn leaks(&self, device: Option<usize>) -> Vec<String> {
        let records = self.records.iter().enumerate();
        let records = records
            .filter(|(_, r)| r.device == device && r.is_live() && r.origin != Origin::Variable);
        let mut leaks: Vec<String> = records
            .map(|(id, r)| format!("allocation #{id} ({} bytes at {:#x})", r.size, r.base))
            .collect();
        let Some(device) = device else {
            return leaks;
        };
        let streams = self.streams.iter().enumerate();
        let streams =
            streams.filter(|(_, s)| s.device == device && s.alive && !s.legacy && !s.internal);
        leaks.extend(streams.map(|(number, _)| format!("stream s{number}")));
        let events = self.events.iter().enumerate();
        let events = events.filter(|(_, e)| e.device == device && e.alive);
        leaks.extend(events.map(|(number, _)| format!("event e{number}")));
        let modules = self.modules.iter().enumerate();
        let modules = modules.filter(|(_, m)| m.device == device && m.loaded);
        leaks.extend(modules.map(|(number, _)| format!("module m{number}")));
        leaks
    }
}

/// Writes what ran, and which kernels and products took the time.
fn tell(totals: &Totals) {
    let mut kinds: Vec<_> = totals.kinds.iter().collect();
    kinds.sort_by(|a, b| b.1.time.cmp(&a.1.time).then(a.0.cmp(b.0)));
    let instructions: u64 = kinds.iter().map(|(_, kind)| kind.lane_instructions).sum();
    let seconds: f64 = kinds.iter().map(|(_, kind)| kind.time.as_secs_f64()).sum();
    eprintln!(
        "vgpu: {} operations, {instructions} instructions of lanes in {seconds:.3} s of kernels and products: {:.1} million a second; {} reports",
        totals.operations,
        instructions as f64 / seconds.max(1e-9) / 1e6,
        totals.reports,
    );
    for (label, kind) in kinds {
        let seconds = kind.time.as_secs_f64();
        eprintln!(
            "vgpu: {seconds:8.3} s, {:6} times, {:12} instructions: {label}",
            kind.count, kind.lane_instructions
        );
    }
}

/// What `atexit` calls.
pub(crate) extern "C" fn at_exit() {
    let Ok(engine) = engine() else {
        return;
    };
    let mut state = engine.finish_all();
    if engine.config.leaks {
        let devices = (0..engine.config.devices).map(Some).chain([None]);
        let leaks: Vec<String> = devices.flat_map(|device| state.leaks(device)).collect();
        if !leaks.is_empty() {
            let text = format!("leaked at the end of the process: {}", leaks.join(", "));
            state.report(crate::codes::UNKNOWN, text);
        }
    }
    if let Some((stream, number)) = engine.config.dropped_wait
        && state.streams.get(stream).is_none_or(|it| it.waits < number)
    {
        eprintln!("vgpu: stream s{stream} has no wait {number} to drop");
    }
    if engine.config.stats {
        tell(&state.totals);
        for (number, stream) in state.streams.iter().enumerate() {
            if stream.waits > 0 {
                eprintln!("vgpu: stream s{number} waits {} times", stream.waits);
            }
        }
        for (name, count) in counts() {
            eprintln!("vgpu: {count:8} {name}");
        }
    }
    if engine.config.exit_code != 0 && state.totals.reports > 0 {
        // SAFETY: this ends the process at once; the other functions of `atexit` are left out, whose work no test needs.
        unsafe { libc::_exit(engine.config.exit_code) }
    }
}
