//! Runs an operation, without the lock on the state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ptx_interp::{Completion, Finding, Launch, Options, WarpOrder, launch};

use crate::codes::{self, Code};
use crate::config::Config;
use crate::heap::{Fault, Heap};
use crate::native;
use crate::ranges::Ranges;
use crate::recorder::{Access, Recorder};
use crate::work::{HostSide, KernelLaunch, Native, Rect, Source, Use, Work};

/// How the warps of a kernel take turns, and when its asynchronous copies take effect.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Eager,
    Lazy,
    Random(u64),
}

/// Why an operation failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: Code,
    pub(crate) text: String,
    /// The record of a freed allocation that was used.
    pub(crate) freed: Option<usize>,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self {
            code: fault.code(),
            text: fault.to_string(),
            freed: match &fault {
                Fault::Freed(_, slot) => Some(slot.id),
                _ => None,
            },
        }
    }
}

/// What an operation did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) accesses: Vec<Access>,
    /// Uses of pinned memory: the record, whether it was written, and the bytes.
    pub(crate) pinned: Option<(usize, bool, Ranges)>,
    pub(crate) failed: Option<Failed>,
    pub(crate) lane_instructions: u64,
    pub(crate) time: Duration,
}

impl Work {
    /// Whether the work is done by bookkeeping alone.
    pub(crate) fn is_short(&self) -> bool {
        matches!(
            self,
            Self::Nothing | Self::Wait(_) | Self::Record(_) | Self::Free(_) | Self::Gate(_)
        )
    }
}

/// Runs an operation.
pub(crate) fn run(heap: &Heap, config: &Config, work: &Work, order: Order) -> Outcome {
    let mut outcome = Outcome::default();
    let mut memory = Recorder::new(heap);
    let started = Instant::now();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        execute(config, work, order, &mut memory, &mut outcome)
    }));
    std::thread::sleep(config.operation.saturating_sub(started.elapsed()));
    outcome.time = started.elapsed();
    outcome.failed = ran
        .unwrap_or_else(|_| {
            Err(Failed {
                code: codes::UNKNOWN,
                text: "the double itself panicked".to_owned(),
                freed: None,
            })
        })
        .err();
    outcome.accesses = memory.accesses();
    outcome
}

fn execute(
    config: &Config,
    work: &Work,
    order: Order,
    memory: &mut Recorder<'_>,
    outcome: &mut Outcome,
) -> Result<(), Failed> {
    if !config.runs {
        if let Work::Download(side, _) = work {
            write_host(&side.rect, &vec![0; side.rect.bytes()]);
        }
        return Ok(());
    }
    match work {
        Work::Nothing | Work::Wait(_) | Work::Record(_) | Work::Free(_) | Work::Gate(_) => {}
        Work::Kernel(kernel) => run_kernel(config, kernel, order, memory, outcome)?,
        Work::Fill(to, value) => memory.fill(to, *value)?,
        Work::Upload(to, Source::Taken(bytes)) => memory.store_rect(to, bytes)?,
        Work::Upload(to, Source::Pinned(side, before)) => {
            outcome.pinned = used(side, false);
            let bytes = read_host(&side.rect);
            memory.store_rect(to, &bytes)?;
            if before.as_ref().is_some_and(|before| **before != *bytes) {
                return Err(Failed {
                    code: codes::UNKNOWN,
                    text: format!(
                        "the host changed pinned memory at {:#x} after it had queued a copy from there and before the copy ran",
                        side.rect.address
                    ),
                    freed: None,
                });
            }
        }
        Work::Download(side, from) => {
            outcome.pinned = used(side, true);
            let bytes = memory.load_rect(from)?;
            write_host(&side.rect, &bytes);
        }
        Work::Copy(to, from) => memory.copy(to, from)?,
        Work::Host(host) => {
            // SAFETY: the program queued this function with this argument, to be called once for each launch.
            unsafe { (host.function)(host.argument) }
        }
        Work::Native(native) => run_native(native, memory)?,
    }
    Ok(())
}

fn used(side: &HostSide, write: bool) -> Option<(usize, bool, Ranges)> {
    let (id, start) = side.pinned?;
    let mut all = crate::ranges::Marks::default();
    for row in side.rect.rows() {
        let offset = start + (row - side.rect.address) as usize;
        all.set(offset, side.rect.width);
    }
    Some((id, write, all.ranges()))
}

/// The bytes of a rectangle of the host's memory, row after row.
pub(crate) fn read_host(rect: &Rect) -> Vec<u8> {
    let mut out = Vec::with_capacity(rect.bytes());
    for row in rect.rows() {
        // SAFETY: the program passed this memory to a copy, so it is readable until the copy is complete; nobody writes it
        // meanwhile, unless the program has a race, which is the program's undefined behaviour.
        out.extend_from_slice(unsafe { std::slice::from_raw_parts(row as *const u8, rect.width) });
    }
    out
}

/// Stores bytes in a rectangle of the host's memory.
fn write_host(rect: &Rect, bytes: &[u8]) {
    for (row, bytes) in rect.rows().zip(bytes.chunks(rect.width.max(1))) {
        // SAFETY: the program passed this memory to a copy, so it is writable until the copy is complete. It does not overlap
        // `bytes`, which the double allocated.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), row as *mut u8, bytes.len()) };
    }
}

fn run_kernel(
    config: &Config,
    kernel: &KernelLaunch,
    order: Order,
    memory: &mut Recorder<'_>,
    outcome: &mut Outcome,
) -> Result<(), Failed> {
    let (order, completion) = match order {
        Order::Eager => (WarpOrder::RoundRobin, Completion::Early),
        Order::Lazy => (WarpOrder::Greedy, Completion::Late),
        Order::Random(seed) if seed % 2 == 0 => (WarpOrder::Random(seed), Completion::Early),
        Order::Random(seed) => (WarpOrder::Random(seed), Completion::Late),
    };
    let options = Options {
        order,
        completion,
        shared_limit: config.most_shared(),
        ..Options::default()
    };
    let call = Launch {
        grid: kernel.grid,
        block: kernel.block,
        shared_bytes: kernel.shared_bytes,
        params: &kernel.params,
        variables: &kernel.variables,
    };
    if config.native {
        if native::run(kernel.entry(), &call, memory).is_some() {
            return Ok(());
        }
        memory.restart();
    }
    match launch(kernel.entry(), &call, memory, &options) {
        Ok(stats) => {
            outcome.lane_instructions = stats.lane_instructions;
            Ok(())
        }
        Err(report) => {
            let cause = memory.fault.take().map(Failed::from);
            let code = match report.finding {
                Finding::Misaligned => codes::MISALIGNED_ADDRESS,
                Finding::Race => codes::UNKNOWN,
                Finding::Budget => codes::LAUNCH_TIMEOUT,
                _ => codes::LAUNCH_FAILED,
            };
            let finding = report.finding;
            Err(Failed {
                code: cause.as_ref().map_or(code, |cause| cause.code),
                text: format!("{finding:?}: {report}"),
                freed: cause.and_then(|cause| cause.freed),
            })
        }
    }
}

fn run_native(native: &Native, memory: &mut Recorder<'_>) -> Result<(), Failed> {
    let mut buffers: Vec<Vec<u8>> = Vec::with_capacity(native.spans.len());
    for (rect, usage) in &native.spans {
        buffers.push(match usage {
            Use::Read => memory.load_rect(rect)?,
            Use::Write => vec![0; rect.bytes()],
            Use::Scratch => Vec::new(),
        });
    }
    let pointers: Vec<*mut u8> = buffers.iter_mut().map(|b| b.as_mut_ptr()).collect();
    // SAFETY: the argument lives as long as `native`, and there is one buffer for each span, of the span's bytes.
    unsafe { (native.run)(native.argument, pointers.as_ptr()) };
    for ((rect, usage), buffer) in native.spans.iter().zip(&buffers) {
        match usage {
            Use::Read => {}
            Use::Write => memory.store_rect(rect, buffer)?,
            Use::Scratch => memory.scribble(rect)?,
        }
    }
    Ok(())
}
