//! Decoding by several ranks in bands of rows, and by one rank in tiles.

use std::sync::Arc;

use xdit_comm::{Error, Shard, Stats, threads};
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::ModelSource;
use xdit_models::layers::Packing;
use xdit_models::noise::{Generator, randn_tensor};
use xdit_models::vae::{VaeConfig, VaeDecoder};
use xdit_models::weights::Scope;

use xdit_tests::goldens::{Golden, max_abs, path, relative_l2, within};

/// The bound: f32 sums in another order (group sums, attention, Winograd tiles that start at other rows).
const PICTURE: f64 = 2e-5;

fn decoder_of(source: &ModelSource, dtype: DType) -> Arc<VaeDecoder> {
    let config = VaeConfig::read(&source.config("vae/config.json").unwrap()).unwrap();
    let weights = source.open_weights("vae", None).unwrap();
    let packing = &mut Packing::new(dtype, Device::cpu());
    let decoder = VaeDecoder::load(&config, &Scope::root(&weights), packing);
    Arc::new(decoder.unwrap())
}

fn golden_decoder(pipeline: &str) -> Arc<VaeDecoder> {
    let source = ModelSource::folder(path(&format!("pipelines/{pipeline}"))).unwrap();
    decoder_of(&source, DType::F32)
}

/// As large as latents are, twice over: differences show.
fn latents([h, w]: [usize; 2], seed: i128) -> Tensor {
    let shape = [1, h, w, 16];
    let mut generators = [Generator::from_seed(seed).unwrap()];
    let values: Vec<f32> = randn_tensor(&shape, &mut generators).unwrap();
    let doubled: Vec<f32> = values.iter().map(|value| 2.0 * value).collect();
    Tensor::from_slice(&doubled, shape, &Device::cpu()).unwrap()
}

/// The picture by `count` ranks with a thread each, and what each sent.
fn over(decoder: &Arc<VaeDecoder>, latents: &Tensor, count: usize) -> (Tensor, Vec<Stats>) {
    let (decoder, latents) = (decoder.clone(), latents.clone());
    let ranks = threads::run(count, move |group| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let picture = pool
            .unwrap()
            .install(|| decoder.forward_over(&latents, &group))
            .map_err(|e| Error::Kernel(e.to_string()))?;
        assert_eq!(picture.is_some(), group.rank() == 0);
        Ok((picture, group.stats()))
    });
    let (pictures, stats): (Vec<_>, Vec<_>) = ranks.expect("a decode").into_iter().unzip();
    (pictures.into_iter().flatten().next().unwrap(), stats)
}

/// 8, 24, 56 and 136 pixels high: fewer rows than ranks, as many, and more, divided by nothing.
fn same_picture_by_any_number_of_ranks(decoder: &Arc<VaeDecoder>) {
    let mut wrong = Vec::new();
    for (i, height) in [1, 3, 7, 17].into_iter().enumerate() {
        let latents = latents([height, [9, 1, 5, 6][i]], 3 + i as i128);
        let whole = decoder.forward(&latents, &mut ()).unwrap();
        for count in 1..=8 {
            let (picture, _) = over(decoder, &latents, count);
            assert_eq!(picture.shape(), whole.shape());
            let apart = max_abs(
                &picture.to_vec_blocking::<f32>().unwrap(),
                &whole.to_vec_blocking::<f32>().unwrap(),
            );
            println!("{height:3} rows of latents, {count} ranks: {apart:.2e}");
            if !within(apart, PICTURE) || (count == 1 && apart != 0.0) {
                wrong.push(format!("{height} rows, {count} ranks: {apart:.2e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bands_of_the_demo_are_the_whole() {
    same_picture_by_any_number_of_ranks(&decoder_of(&ModelSource::demo(), DType::F32));
}

#[test]
fn bands_of_a_golden_are_the_whole() {
    same_picture_by_any_number_of_ranks(&golden_decoder("flux-dev"));
}

#[test]
fn bands_in_bf16_are_as_near_as_bf16_is() {
    // Sums in another order tip roundings of 2⁻⁸ that later layers amplify. What f32 gives is the measure of both.
    let [exact, rounded] =
        [DType::F32, DType::BF16].map(|dtype| decoder_of(&ModelSource::demo(), dtype));
    let latents = latents([7, 6], 1);
    let truth = exact
        .forward(&latents, &mut ())
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    let error = |picture: Tensor| relative_l2(&picture.to_vec_blocking::<f32>().unwrap(), &truth);
    let whole = error(rounded.forward(&latents, &mut ()).unwrap());
    let bands = error(over(&rounded, &latents, 3).0);
    assert!(bands <= 1.2 * whole, "{bands:.2e} and {whole:.2e}");
}

#[test]
fn bytes_sent_are_what_the_formula_says() {
    let decoder = golden_decoder("flux-dev");
    let config = decoder.config();
    let ([h, w], count) = ([7, 5], 3);
    let (_, stats) = over(&decoder, &latents([h, w], 1), count);
    let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
    let resnets = config.layers_per_block + 1;
    // Elements of one line of everything that a 3×3 convolution reads but the latents, and the number of group norms.
    // First the middle block's; its attention and the end of the decoder have a norm each.
    let (mut line, mut norms) = (4 * w * channels[0], 4 + 1 + 1);
    for (level, outputs) in channels.iter().enumerate() {
        let (inputs, w) = (channels[level.saturating_sub(1)], w << level);
        line += w * (inputs + (2 * resnets - 1) * outputs);
        line += w * outputs; // the upsampler's, or that of the last convolution
        norms += 2 * resnets;
    }
    let rows = |rank: usize| Shard::of(h, count, rank % count).len;
    for (rank, stats) in stats.iter().enumerate() {
        let bytes = |op| stats.get(&(op, None)).map_or(0, |sent| sent.bytes);
        let beside = usize::from(rank > 0) + usize::from(rank + 1 < count);
        // Keys and values go on, first this rank's own, then those of the ranks before it.
        let ring: usize = (0..count - 1)
            .map(|hop| rows(rank + count - hop) * w * 2 * channels[0] * 4)
            .sum();
        let picture = usize::from(rank > 0) * 64 * rows(rank) * w * 3 * 4;
        assert_eq!(
            bytes("send"),
            beside * line * 4 + ring + picture,
            "rank {rank}"
        );
        let sums = (1 + 2 * config.norm_num_groups) * 8;
        assert_eq!(bytes("control"), norms * sums * (count - 1));
    }
}

#[test]
fn a_rank_with_other_latents_is_an_error_on_all() {
    let decoder = golden_decoder("flux-schnell");
    let error = threads::run(3, move |group| {
        let width = 4 + usize::from(group.rank() == 1);
        let result = decoder.forward_over(&latents([3, width], 1), &group);
        result.map(drop).map_err(|e| Error::Kernel(e.to_string()))
    })
    .unwrap_err();
    assert!(error.to_string().contains('5'), "{error}");
}

#[test]
fn tiles_are_those_of_diffusers() {
    let golden = Golden::read("vae/flux-dev-tiled.safetensors.gz");
    let picture = |name: &str, dims: &[usize]| {
        let planar = golden.tensor(name, &Device::cpu());
        planar.view().permute(dims).unwrap().to_tensor().unwrap()
    };
    let decoder = golden_decoder("flux-dev");
    let latents = picture("vae.decoder.input", &[0, 2, 3, 1]);
    let want = picture("vae.decoder.tiled", &[0, 2, 3, 1]);
    let tiled = decoder.forward_tiled(&latents).unwrap();
    assert_eq!(tiled.shape(), want.shape());
    // As the decoder's own stages (`vae.rs`).
    let apart = relative_l2(
        &tiled.to_vec_blocking::<f32>().unwrap(),
        &want.to_vec_blocking::<f32>().unwrap(),
    );
    assert!(within(apart, 2e-6), "{apart:.2e}");
    let whole = decoder.forward(&latents, &mut ()).unwrap();
    let apart = relative_l2(
        &tiled.to_vec_blocking::<f32>().unwrap(),
        &whole.to_vec_blocking::<f32>().unwrap(),
    );
    assert!(apart >= 1e-3, "there are tiles: {apart:.2e}");
    // What fits a tile is decoded whole.
    let small = latents.narrow(1, 0, 8).unwrap();
    let [tiled, whole] = [
        decoder.forward_tiled(&small).unwrap(),
        decoder.forward(&small, &mut ()).unwrap(),
    ];
    assert!(tiled.host_bytes_blocking().unwrap() == whole.host_bytes_blocking().unwrap());
}
