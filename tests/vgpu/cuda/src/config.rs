//! What the environment sets: the devices that programs see, and how the streams run.

use std::str::FromStr;
use std::time::Duration;

use crate::pace::Pace;

/// When operations run that were queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Within the call that queues them.
    Eager,
    /// When a call waits for them, and no other operation than those that it waits for.
    Lazy,
    /// At any time between, in an order that the seed draws.
    Random,
}

/// The settings of a process. `README.md` lists the variables.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) devices: usize,
    /// Which of the machine's devices is the first that this process sees.
    pub(crate) first_device: usize,
    /// The compute capability, such as (8, 0).
    pub(crate) capability: (u32, u32),
    pub(crate) driver: i32,
    /// Whether devices can reach each other's memory.
    pub(crate) peers: bool,
    pub(crate) memory_bytes: usize,
    /// A device of which another program has all but 1 MiB.
    pub(crate) little_on: usize,
    /// After so many allocations of a device, another program has what is free.
    pub(crate) taken_after: usize,
    pub(crate) policy: Policy,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
    /// Whether kernels, products and copies run. If they do not, memory is allocated and never used, and the host reads zeros.
    pub(crate) runs: bool,
    /// Whether the plain kernels run natively that have a native version.
    pub(crate) native: bool,
    /// A wait of a stream for an event that does nothing: the number of the stream, and the number of the wait among its own.
    pub(crate) dropped_wait: Option<(usize, u64)>,
    /// Each operation takes at least so long.
    pub(crate) operation: Duration,
    /// How long a call waits for a gate that nothing queued opens, before this is reported.
    pub(crate) patience: Duration,
    pub(crate) leaks: bool,
    pub(crate) stats: bool,
    pub(crate) exit_code: i32,
}

/// A variable that cannot be read would silently test something else, so the process ends.
fn number<T: FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    text.parse().unwrap_or_else(|_| refused(name, &text))
}

/// Two numbers with a colon between them.
fn pair(name: &str) -> Option<(usize, u64)> {
    let text = std::env::var(name).ok()?;
    let numbers = text.split_once(':');
    let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    Some(numbers.unwrap_or_else(|| refused(name, &text)))
}

fn refused(name: &str, text: &str) -> ! {
    eprintln!("vgpu: {name}={text} is not a value of this variable");
    std::process::abort()
}

impl Config {
    pub(crate) fn from_environment() -> Self {
        let flag = |name, default: u32| number::<u32>(name, default) != 0;
        let capability: u32 = number("VGPU_CC", 80);
        let policy = std::env::var("VGPU_POLICY").unwrap_or_else(|_| "random".to_owned());
        let pace = std::env::var("VGPU_PACE").unwrap_or_else(|_| "free".to_owned());
        Self {
            devices: number("VGPU_DEVICES", 2),
            first_device: number("VGPU_FIRST_DEVICE", 0),
            capability: (capability / 10, capability % 10),
            driver: number("VGPU_DRIVER", 12080),
            peers: flag("VGPU_PEERS", 1),
            memory_bytes: number::<usize>("VGPU_MEM_MB", 1024) << 20,
            little_on: number("VGPU_LITTLE_ON", usize::MAX),
            taken_after: number("VGPU_TAKEN_AFTER", usize::MAX),
            policy: match policy.as_str() {
                "eager" => Policy::Eager,
                "lazy" => Policy::Lazy,
                "random" => Policy::Random,
                other => refused("VGPU_POLICY", other),
            },
            pace: Pace::parse(&pace).unwrap_or_else(|| refused("VGPU_PACE", &pace)),
            seed: number("VGPU_SEED", 1),
            runs: !flag("VGPU_SKIP_KERNELS", 0),
            native: flag("VGPU_NATIVE", 0),
            dropped_wait: pair("VGPU_DROP_WAIT"),
            operation: Duration::from_micros(number("VGPU_OPERATION_US", 0)),
            patience: Duration::from_millis(number("VGPU_HANG_MS", 3_600_000)),
            leaks: flag("VGPU_LEAKS", 0),
            stats: flag("VGPU_STATS", 0),
            exit_code: number("VGPU_EXITCODE", 0),
        }
    }

    /// The shared memory of a block that a kernel may ask for.
    pub(crate) fn most_shared(&self) -> usize {
        1024 * match self.capability {
            (8, 0) | (8, 7) => 163,
            (9, 0) | (10, _) => 227,
            _ => 99,
        }
    }
}
