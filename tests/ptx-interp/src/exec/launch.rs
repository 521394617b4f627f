//! A launch: its checks, and its blocks one after another.

use std::collections::{HashMap, VecDeque};

use crate::exec::barriers::BarrierState;
use crate::exec::block::{Block, Context};
use crate::exec::bulk::BulkGroups;
use crate::exec::copies::ThreadCopies;
use crate::exec::schedule::Failure;
use crate::exec::warp::Warp;
use crate::ir::{BulkOp, MbarrierOp, Op};
use crate::memory::{Agents, Clocks, DeviceMemory, RaceMap, SharedMemory, Units};
use crate::module::Entry;
use crate::options::{Options, Random, Stats, WarpOrder};
use crate::report::{Finding, Place, Report};

/// The most threads of a block, and the most of each dim.
const MOST_THREADS: u32 = 1024;
const MOST_BLOCK: [u32; 3] = [1024, 1024, 64];
/// The blocks are listed, in the order in which they run.
const MOST_BLOCKS: u64 = 1 << 24;
const MOST_GRID: [u32; 3] = [0x7fff_ffff, 65535, 65535];

/// What a kernel is launched with.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: usize,
    /// All parameters, at the offsets of `Entry::params`.
    pub params: &'a [u8],
    /// The addresses of `Module::variables`; those that the kernel does not name may be 0.
    pub variables: &'a [u64],
}

fn check(entry: &Entry, launch: &Launch<'_>, options: &Options) -> Result<(), String> {
    for dim in 0..3 {
        if !(1..=MOST_GRID[dim]).contains(&launch.grid[dim])
            || !(1..=MOST_BLOCK[dim]).contains(&launch.block[dim])
        {
            return Err(format!(
                "a grid of {:?} blocks of {:?} threads is not possible",
                launch.grid, launch.block
            ));
        }
    }
    let blocks: u64 = launch.grid.iter().map(|d| u64::from(*d)).product();
    if blocks > MOST_BLOCKS {
        return Err(format!(
            "a grid of {blocks} blocks; the interpreter runs at most {MOST_BLOCKS} in a launch"
        ));
    }
    let threads: u64 = launch.block.iter().map(|d| u64::from(*d)).product();
    let most = entry.max_threads.unwrap_or(MOST_THREADS).min(MOST_THREADS);
    if threads > u64::from(most) {
        return Err(format!(
            "a block has {threads} threads; the kernel allows {most}"
        ));
    }
    if let Some(exact) = entry.exact_block.filter(|exact| *exact != launch.block) {
        return Err(format!(
            "a block has {:?} threads; the kernel needs {exact:?}",
            launch.block
        ));
    }
    if launch.params.len() != entry.param_bytes() {
        return Err(format!(
            "{} bytes of parameters; the kernel has {}",
            launch.params.len(),
            entry.param_bytes()
        ));
    }
    if launch.shared_bytes > 0 && entry.dynamic_align.is_none() {
        return Err(format!(
            "{} bytes of dynamic shared memory, which the kernel does not declare",
            launch.shared_bytes
        ));
    }
    let shared = dynamic_start(entry).saturating_add(launch.shared_bytes);
    if shared > options.shared_limit {
        return Err(format!(
            "a block needs {shared} bytes of shared memory; {} are possible",
            options.shared_limit
        ));
    }
    match entry.uses.iter().find(|index| {
        launch
            .variables
            .get(**index as usize)
            .is_none_or(|address| *address == 0)
    }) {
        Some(index) => Err(format!("variable {index} of the module has no address")),
        None => Ok(()),
    }
}

fn dynamic_start(entry: &Entry) -> usize {
    entry
        .shared
        .next_multiple_of(entry.dynamic_align.unwrap_or(1).max(16))
}

fn units(entry: &Entry) -> Units {
    let has = |which: fn(&Op) -> bool| entry.code.iter().any(|instruction| which(&instruction.op));
    Units {
        // Waits alone count too: a thread that waits learns the clock of its unit.
        copies: has(|op| {
            matches!(
                op,
                Op::CopyAsync { .. }
                    | Op::CopyWait { .. }
                    | Op::Mbarrier {
                        op: MbarrierOp::ArriveAfterCopies { .. },
                        ..
                    }
            )
        }),
        bulk: has(|op| {
            matches!(
                op,
                Op::Bulk(BulkOp::Store { .. } | BulkOp::TensorStore { .. } | BulkOp::Wait { .. })
            )
        }),
        wgmma: has(|op| matches!(op, Op::Wgmma(_) | Op::WgmmaWait { .. })),
        mbarriers: has(|op| matches!(op, Op::Mbarrier { .. })),
    }
}

/// Runs a kernel to its end.
///
/// # Errors
/// The first error of the kernel, and a launch that is not possible. Memory keeps what was written until then.
pub fn launch(
    entry: &Entry,
    launch: &Launch<'_>,
    memory: &mut dyn DeviceMemory,
    options: &Options,
) -> Result<Stats, Report> {
    let report = |message| Report {
        finding: Finding::Launch,
        entry: entry.name.clone(),
        block: None,
        thread: None,
        place: None,
        message,
    };
    check(entry, launch, options).map_err(report)?;
    let threads: usize = launch.block.iter().map(|d| *d as usize).product();
    let context = Context {
        entry,
        grid: launch.grid,
        block: launch.block,
        params: launch.params,
        variables: launch.variables,
        dynamic: (dynamic_start(entry), launch.shared_bytes),
        options: *options,
        agents: Agents::new(threads, units(entry)),
    };
    let seed = if let WarpOrder::Random(seed) = options.order {
        seed
    } else {
        0
    };
    let mut random = Random::new(seed);
    let mut stats = Stats::default();
    let mut races = RaceMap::default();
    let [x, y, z] = launch.grid.map(u64::from);
    let mut numbers: Vec<u32> = (0..(x * y * z) as u32).collect();
    if matches!(options.order, WarpOrder::Random(_)) {
        for last in (1..numbers.len()).rev() {
            numbers.swap(last, random.below(last + 1));
        }
    }
    let mut warps: Vec<Warp> = (0..threads.div_ceil(32))
        .map(|w| Warp::new(w, context.block, entry.registers, entry.local))
        .collect();
    for number in numbers {
        let n = u64::from(number);
        let id = [n % x, n / x % y, n / x / y].map(|i| i as u32);
        for warp in &mut warps {
            warp.reset(context.block);
        }
        let parts = std::mem::take(&mut warps);
        let mut block = new_block(
            &context,
            memory,
            (&mut races, &mut stats),
            parts,
            id,
            number,
        );
        block
            .run(&mut random)
            .map_err(|failure| located(entry, id, failure))?;
        warps = block.warps;
    }
    Ok(stats)
}

fn new_block<'l>(
    context: &'l Context<'l>,
    memory: &'l mut dyn DeviceMemory,
    (global_races, stats): (&'l mut RaceMap, &'l mut Stats),
    warps: Vec<Warp>,
    id: [u32; 3],
    number: u32,
) -> Block<'l> {
    let (threads, entry) = (context.threads(), context.entry);
    let (start, size) = context.dynamic;
    let clocks = if context.options.races {
        Clocks::new(&context.agents)
    } else {
        Clocks::none()
    };
    Block {
        context,
        memory,
        global_races,
        stats,
        id,
        number,
        shared: SharedMemory::new(if size > 0 { start + size } else { entry.shared }),
        shared_races: RaceMap::default(),
        fenced: clocks.empty(),
        unit_clocks: vec![0; context.agents.total()],
        clocks,
        warps,
        barriers: (0..16).map(|_| BarrierState::default()).collect(),
        mbarriers: HashMap::new(),
        copies: (0..threads).map(|_| ThreadCopies::default()).collect(),
        bulk_groups: (0..threads).map(|_| BulkGroups::default()).collect(),
        tasks: VecDeque::new(),
        changes: 0,
        scratch: [[0; 32]; 4],
    }
}

fn located(entry: &Entry, block: [u32; 3], failure: Failure) -> Report {
    let Failure {
        warp,
        instruction,
        problem,
    } = failure;
    let line = instruction
        .and_then(|pc| entry.code.get(pc))
        .map(|i| i.line);
    Report {
        finding: problem.finding,
        entry: entry.name.clone(),
        block: Some(block),
        thread: warp
            .zip(problem.lane)
            .map(|(warp, lane)| (warp * 32 + lane) as u32),
        place: line.map(|line| Place {
            line,
            text: entry.text(line),
        }),
        message: problem.message,
    }
}
