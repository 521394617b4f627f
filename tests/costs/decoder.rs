//! The peak memory of a decode, by one rank and by one of several. Every allocation is counted.

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::Duration;

use rayon::ThreadPoolBuilder;
use xdit_comm::{Backend, Call, Group, Result, Shard, Ticket};
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::ModelSource;
use xdit_models::layers::Packing;
use xdit_models::vae::{VaeConfig, VaeDecoder};
use xdit_models::weights::Scope;

use crate::{ALLOCATED, alone};

/// One rank of many, the others being made up: whatever it expects arrives at once and is zeros. So all that is allocated is
/// this rank's, messages that it receives included; what it sends is held until the next collective, or the next exchange of
/// the control plane.
#[derive(Debug)]
struct OneOf {
    rank: usize,
    world_size: usize,
    sent: Mutex<Vec<Tensor>>,
}

#[derive(Debug)]
struct Arrived<T>(T);

impl<T: Send + Debug> Ticket<T> for Arrived<T> {
    fn wait(self: Box<Self>) -> Result<T> {
        Ok(self.0)
    }
}

impl Backend for OneOf {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn receives_ahead(&self) -> bool {
        true
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        let mut sent = self.sent.lock().unwrap();
        let mut arrived = Vec::new();
        for call in batch {
            if call.op.is_collective() {
                sent.clear();
            }
            sent.extend(call.gives);
            for spec in &call.expects {
                arrived.push(Tensor::zeros(spec.shape, spec.dtype, &Device::cpu())?);
            }
        }
        Ok(Box::new(Arrived(arrived)))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        _: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        self.sent.lock().unwrap().clear();
        Ok(Box::new(Arrived(vec![
            vec![0; bytes.len()];
            self.world_size
        ])))
    }

    fn fail(&self, reason: &str) {
        unreachable!("a decode does not fail: {reason}")
    }

    fn split(&self, _: usize, _: usize) -> Result<Box<dyn Backend>> {
        unreachable!("a decode splits no group")
    }
}

/// What `work` had allocated at most, beyond what was before; `threads` of them compute.
fn peak(threads: usize, work: impl FnOnce() + Send) -> usize {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        ALLOCATED.reset_peak_usage();
        let before = ALLOCATED.current_usage();
        work();
        ALLOCATED.peak_usage() - before
    })
}

fn rank(decoder: &VaeDecoder, latents: &Tensor, rank: usize, world_size: usize) -> usize {
    let group = Group::new(Box::new(OneOf {
        rank,
        world_size,
        sent: Mutex::default(),
    }));
    peak(1, || drop(decoder.forward_over(latents, &group).unwrap()))
}

/// Statistics, views, messages' shapes: what does not grow with the picture.
const SMALL: usize = 64 << 10;

#[test]
fn a_rank_takes_its_share_of_the_memory() {
    let _turn = alone();
    let source = ModelSource::demo();
    let config = VaeConfig::read(&source.config("vae/config.json").unwrap()).unwrap();
    let weights = source.open_weights("vae", None).unwrap();
    let packing = &mut Packing::new(DType::F32, Device::cpu());
    let decoder = VaeDecoder::load(&config, &Scope::root(&weights), packing).unwrap();
    let (rows, columns) = (40, 32);
    let latents = Tensor::zeros([1, rows, columns, 16], DType::F32, &Device::cpu()).unwrap();
    let forward = |latents: &Tensor, threads| {
        peak(threads, || drop(decoder.forward(latents, &mut ()).unwrap()))
    };
    let whole = forward(&latents, 1);
    // Each thread has a block of a convolution besides, whatever the picture.
    let scratch = forward(&latents, 2) - whole;
    let activations = whole - scratch;
    // Six lines of what is widest: the input of the last level's first residual block.
    let channels = &config.block_out_channels;
    let halo = 6 * (8 * columns) * channels[1] * size_of::<f32>();
    println!("whole {whole} bytes, scratch {scratch}, halo {halo}");
    for ranks in [2, 3, 4, 8] {
        for r in 0..ranks {
            let took = rank(&decoder, &latents, r, ranks);
            let share = activations * Shard::of(rows, ranks, r).len / rows;
            println!("rank {r} of {ranks}: {took} bytes, its share {share}");
            let most = share + halo + scratch + SMALL;
            assert!(took <= most, "rank {r} of {ranks}: {took}, not {most}");
            assert!(took >= share, "so much is needed: {took}, {share}");
        }
    }

    // Tiles of 256 × 256 pixels: the activations of one tile, and the picture, its tiles and their copies in f32.
    let tiled = peak(1, || drop(decoder.forward_tiled(&latents).unwrap()));
    let one = forward(&latents.narrow(1, 0, 32).unwrap(), 1);
    let picture = rows * columns * 64 * 3 * size_of::<f32>();
    println!("tiled {tiled} bytes, one tile {one}, picture {picture}");
    assert!(tiled <= one + 3 * picture);
}
