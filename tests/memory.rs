//! How much memory a decode takes at most, by one rank and by several: every allocation is counted. A program of its own,
//! with one test, so that nothing else is.

use peak_alloc::PeakAlloc;
use rayon::ThreadPoolBuilder;
use xdit_comm::{Error, threads};
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::ModelSource;
use xdit_models::layers::Packing;
use xdit_models::vae::{VaeConfig, VaeDecoder};
use xdit_models::weights::Scope;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What `work` had allocated at most, beyond what was before.
fn peak(work: impl FnOnce()) -> usize {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    work();
    ALLOCATED.peak_usage() - before
}

/// The decode of one rank with `count` threads: as many as the ranks have together, since each holds a block of a
/// convolution.
fn whole(decoder: &VaeDecoder, latents: &Tensor, count: usize) -> usize {
    let pool = ThreadPoolBuilder::new().num_threads(count).build().unwrap();
    peak(|| drop(pool.install(|| decoder.forward(latents, &mut ()).unwrap())))
}

/// The decode of `count` ranks with a thread each, all together.
fn bands(decoder: &VaeDecoder, latents: &Tensor, count: usize) -> usize {
    peak(|| {
        threads::run(count, |group| {
            let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            pool.install(|| decoder.forward_over(latents, &group))
                .map_err(|e| Error::Kernel(e.to_string()))
        })
        .unwrap();
    })
}

/// What ranks may have for themselves: messages under way, threads' own structures.
const BOOKKEEPING: usize = 64 << 10;

#[test]
fn memory_of_a_decode_is_shared_out() {
    let source = ModelSource::demo();
    let config = VaeConfig::read(&source.config("vae/config.json").unwrap()).unwrap();
    let weights = source.open_weights("vae", None).unwrap();
    let packing = &mut Packing::new(DType::F32, Device::cpu());
    let decoder = VaeDecoder::load(&config, &Scope::root(&weights), packing).unwrap();
    let (rows, columns) = (40, 32);
    let latents = Tensor::zeros([1, rows, columns, 16], DType::F32, Device::cpu()).unwrap();

    // Six lines of what is widest: the input of the last level's first residual block.
    let channels = &config.block_out_channels;
    let halo = 6 * (8 * columns) * channels[1] * size_of::<f32>();
    for count in [2, 4, 8] {
        let whole = whole(&decoder, &latents, count);
        let bands = bands(&decoder, &latents, count);
        let most = whole + count * (halo + BOOKKEEPING);
        println!(
            "{count} ranks: {} KiB each, whole {} KiB, halo {} KiB",
            bands / count >> 10,
            whole >> 10,
            halo >> 10
        );
        // Every rank has as many rows, so a rank's share is bands / count.
        assert!(bands <= most, "{count} ranks: {bands} bytes, not {most}");
        // The measure sees what it is to see: the picture alone has 3·f32 a pixel, twice when its bands are joined.
        assert!(bands >= rows * columns * 64 * 3 * 4);
    }

    // Tiles of 256 × 256 pixels: a row of them more than one, but the activations of one.
    let tiled = peak(|| drop(decoder.forward_tiled(&latents).unwrap()));
    let small = latents.narrow(1, 0, 32).unwrap();
    let one_tile = peak(|| drop(decoder.forward(&small, &mut ()).unwrap()));
    let picture = rows * columns * 64 * 3 * 4;
    println!("tiled {} KiB, one tile {} KiB", tiled >> 10, one_tile >> 10);
    assert!(tiled <= one_tile + 3 * picture);
}
