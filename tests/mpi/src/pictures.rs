//! Draws the golden pipelines over the processes of `mpirun`, under every strategy: each byte is that of ranks that are threads.
//! `ci/processes.sh` runs it.
//!
//!     mpirun -n 4 mpi-pictures
//!
//! Each number of processes has its own plans: 2, 3, 4 and 8 have some.
//!
//!     mpirun -n 4 mpi-pictures link ring|ulysses|pipe SIZE STEPS IP
//!
//! draws the demo on 2 × 2 ranks, of which the first two are on the host with address IP. Only this axis reaches the other host. Rank 0
//! prints what all ranks sent on it, and how long it took. `ci/hosts.py` runs it.

mod link;
mod world;

use std::{process::ExitCode, time::Instant};
use xdit_comm::{
    Error, Group, Result, Shard,
    processes::mpi::{Mpi, MpiOptions},
};
use xdit_kernels::{DType, Device};
use xdit_models::{Degrees, MeshOrder, Output, Parallel, PipeFusion, Placement, Request, axes};
use xdit_tests::golden_run::load;

/// How blocks and steps are divided in a plan.
#[derive(Clone, Copy)]
enum Steps {
    /// One patch.
    Whole,
    /// Three patches after one whole step. Without a placement, that of the model: folded for HunyuanDiT.
    Patches(Option<Placement>),
}

use Steps::{Patches, Whole};

/// `[data, cfg, pipe, ring, ulysses]`.
const PLANS: &[([usize; 5], Steps)] = &[
    ([1, 1, 1, 1, 2], Whole),
    ([1, 1, 1, 2, 1], Whole),
    ([1, 1, 2, 1, 1], Patches(Some(Placement::Linear))),
    ([1, 1, 2, 1, 1], Patches(None)),
    ([1, 2, 1, 1, 1], Whole),
    ([2, 1, 1, 1, 1], Whole),
    ([1, 1, 1, 1, 3], Whole),
    ([1, 1, 1, 3, 1], Whole),
    ([1, 1, 1, 2, 2], Whole),
    ([1, 2, 2, 1, 1], Patches(None)),
    ([1, 1, 2, 2, 1], Patches(Some(Placement::Linear))),
    ([2, 1, 1, 1, 2], Whole),
    ([1, 2, 2, 1, 2], Patches(Some(Placement::Linear))),
    ([2, 2, 2, 1, 1], Patches(None)),
    ([1, 2, 1, 2, 2], Whole),
];

fn main() -> ExitCode {
    let began = Instant::now();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("after {:.1?}: {error}", began.elapsed());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mpi = Mpi::init(MpiOptions::default())?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (ip, link) = match words[..] {
        [] => ("127.0.0.1", None),
        ["link", axis, size, steps, ip] => (ip, Some([axis, size, steps])),
        _ => return Err(Error::other("mpi-pictures [link AXIS SIZE STEPS IP]")),
    };
    let world = world::join(&mpi, ip)?;
    let group = world.group();
    let began = Instant::now();
    let outcome = match link {
        Some(words) => link::draw(group, words).map(|()| None),
        None => all(group).map(Some),
    };
    match outcome {
        Ok(Some(0)) => return Err(Error::other("this number of processes has no plans")),
        Ok(Some(plans)) if group.rank() == 0 => println!(
            "{} processes: {plans} plans after {:.1?}",
            group.world_size(),
            began.elapsed()
        ),
        Ok(_) => {}
        Err(error) => {
            world.fail(&error.to_string());
            return Err(error);
        }
    }
    drop(world);
    mpi.finalise()
}

/// Draws each plan of this number of ranks with each family, and returns the number of plans.
fn all(group: &Group) -> Result<usize> {
    let requests = [
        (
            "flux-dev",
            Request::new(["a red circle"])
                .max_sequence_length(9)
                .true_cfg_scale(2.0),
        ),
        (
            "sd35-medium",
            Request::new(["a red circle"])
                .max_sequence_length(9)
                .guidance_scale(3.0),
        ),
        (
            "hunyuan-v1.2",
            Request::new(["一个红色的圆"])
                .guidance_scale(3.0)
                .use_resolution_binning(false),
        ),
    ];
    let mut count = 0;
    for (pipeline, request) in requests {
        // 7 × 3 image tokens: nothing divides evenly.
        let request = request
            .negative_prompt(["green"])
            .height(112)
            .width(48)
            .num_inference_steps(3)
            .num_images_per_prompt(2);
        let mut other = MeshOrder::USUAL.axes();
        other.reverse();
        let reversed = other.map(|axis| axis.name()).join(",").parse();
        let reversed: MeshOrder = reversed.map_err(Error::other)?;
        for ([data, cfg, pipe, ring, ulysses], steps) in PLANS {
            let order = match count % 2 {
                0 => MeshOrder::USUAL,
                _ => reversed,
            };
            let degrees = Degrees {
                data: *data,
                cfg: *cfg,
                pipe: *pipe,
                ring: *ring,
                ulysses: *ulysses,
                order,
            };
            if degrees.product() == Some(group.world_size()) {
                draw(group, pipeline, &request, degrees, *steps)
                    .map_err(|error| Error::other(format!("{pipeline}, {degrees}: {error}")))?;
                count += 1;
            }
        }
    }
    Ok(count)
}

fn draw(
    group: &Group,
    pipeline: &str,
    request: &Request,
    degrees: Degrees,
    steps: Steps,
) -> Result<()> {
    let options = match steps {
        Whole => PipeFusion::default(),
        Patches(placement) => {
            let mut options = PipeFusion::default().patches(3);
            options.placement = placement;
            options
        }
    };
    let drawn = |parallel: Parallel| -> Result<Output> {
        let (pipe, _) = load(pipeline, DType::F32, &Device::cpu());
        let pipe = pipe
            .parallel(parallel.pipefusion(options.clone()))
            .map_err(Error::other)?;
        pipe.generate(request, &mut ()).map_err(Error::other)
    };
    let mine = drawn(Parallel::group(degrees, group.clone()))?;
    // The first rank of each replica has its pictures. It draws them again, with threads.
    let leads = !mine.images.is_empty();
    let leaders = group.control().all_gather(&[u8::from(leads)])?;
    let leaders = leaders.concat().iter().filter(|leads| **leads == 1).count();
    if leaders != degrees.data {
        return Err(Error::other(format!(
            "{leaders} ranks have pictures, not {}",
            degrees.data
        )));
    }
    if leads {
        let all = drawn(Parallel::threads(degrees))?;
        let replica = degrees.coord(group.rank(), axes::DATA);
        let own = Shard::of(all.images.len(), degrees.data, replica);
        let threads = &all.images[own.start..own.start + own.len];
        let same = threads
            .iter()
            .map(|image| &image.rgb)
            .eq(mine.images.iter().map(|image| &image.rgb));
        let latents = all
            .latents
            .view()
            .narrow(0, own.start, own.len)?
            .to_tensor()?;
        if !same || *latents.host_bytes_blocking()? != *mine.latents.host_bytes_blocking()? {
            return Err(Error::other("the bytes differ from those of threads"));
        }
    }
    Ok(())
}
