//! A rank of several stages reads only the tensors of its stage, and touches no page of the others.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use xdit_comm::threads;
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::flux::{FluxConfig, FluxTransformer};
use xdit_models::hunyuandit::{HunyuanConfig, HunyuanTransformer};
use xdit_models::layers::Packing;
use xdit_models::weights::{Scope, WeightSource, Weights};
use xdit_models::{
    Blocks, ModelSource, Observer, Parallel, Phase, PhaseEvent, Pipeline, Request, Result,
};

use crate::engine::{
    SAME, apart, degrees, draw, golden, latents, options, over, pipefusion, request, source,
};
use crate::hunyuandit;

/// Counts what is read, and keeps every page that was touched in memory so that it can be counted.
struct Counted<'a> {
    weights: &'a Weights,
    read: Mutex<BTreeSet<String>>,
    bytes: Mutex<usize>,
}

impl WeightSource for Counted<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.weights.tensor(name, shape)?;
        if self.read.lock().unwrap().insert(name.into()) {
            *self.bytes.lock().unwrap() += tensor.byte_len();
        }
        Ok(tensor)
    }

    fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    fn contains_prefix(&self, prefix: &str) -> bool {
        self.weights.contains_prefix(prefix)
    }

    fn release(&self, _: &str) {}
}

/// Bytes of this process's resident pages of mappings of a file.
fn resident(file: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux");
    let mut ours = false;
    let mut kib = 0;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            ours = line.ends_with(file);
        } else if ours && first == "Rss:" {
            let number = line.split_whitespace().nth(1).expect("a number");
            kib += number.parse::<usize>().expect("KiB");
        }
    }
    kib << 10
}

#[test]
#[cfg(target_os = "linux")]
fn a_stage_reads_its_tensors_and_touches_no_other_pages() {
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdit-models/demo/flux");
    // A file of this test's own, so that no other test maps it.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("transformer")).unwrap();
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        let inside = format!("transformer/{name}");
        std::fs::copy(demo.join(&inside), folder.path().join(&inside)).unwrap();
    }
    std::fs::copy(
        demo.join("model_index.json"),
        folder.path().join("model_index.json"),
    )
    .unwrap();
    let source = ModelSource::folder(folder.path()).unwrap();
    let config = FluxConfig::read(&source.config("transformer/config.json").unwrap()).unwrap();
    let file = folder
        .path()
        .join("transformer/diffusion_pytorch_model.safetensors");
    let file = file.to_str().unwrap();
    let stages = [0..2, 2..5, 5..8];
    let mut all = BTreeSet::new();
    let mut in_all = 0;
    for blocks in stages {
        let weights = source.open_weights("transformer", None).unwrap();
        let counted = Counted {
            weights: &weights,
            read: Mutex::default(),
            bytes: Mutex::default(),
        };
        let packing = &mut Packing::new(DType::F32, Device::cpu());
        FluxTransformer::load_blocks(&config, blocks.clone(), &Scope::root(&counted), packing)
            .unwrap();
        let touched = resident(file);
        let (read, names) = (
            *counted.bytes.lock().unwrap(),
            counted.read.into_inner().unwrap(),
        );
        println!(
            "blocks {blocks:?}: {} tensors, {read} bytes read, {touched} bytes of pages",
            names.len()
        );
        // Faults map up to 16 pages around; tensors of a block lie together in the file.
        let slack = (blocks.len() + 3) * 2 * (64 << 10);
        assert!(
            touched >= read && touched <= read + slack,
            "{touched} bytes of pages for {read} read"
        );
        for name in &names {
            let of = |kind: &str, first: usize| {
                let number = name
                    .strip_prefix(kind)?
                    .split('.')
                    .next()?
                    .parse::<usize>()
                    .ok()?;
                Some(number + first)
            };
            let block = of("transformer_blocks.", 0)
                .or_else(|| of("single_transformer_blocks.", config.num_layers));
            assert!(block.is_none_or(|block| blocks.contains(&block)), "{name}");
        }
        in_all += read;
        all.extend(names);
    }
    // Together they read everything; only what every stage needs was read more than once.
    let weights = source.open_weights("transformer", None).unwrap();
    assert_eq!(all.len(), weights.tensors().count());
    let whole = weights.total_bytes() as usize;
    assert!(
        in_all >= whole && in_all < whole * 5 / 4,
        "{in_all} of {whole}"
    );
}

#[test]
fn a_folded_stage_reads_the_blocks_of_both_ends() {
    let source = source(hunyuandit::MODEL);
    let config = source.config("transformer/config.json").unwrap();
    let config = HunyuanConfig::read(&config).unwrap();
    let mut all = BTreeSet::new();
    let stages = [&[0..1, 7..8][..], &[1..3, 5..7], &[3..4, 4..5]];
    for (stage, ranges) in stages.into_iter().enumerate() {
        let weights = source.open_weights("transformer", None).unwrap();
        let counted = Counted {
            weights: &weights,
            read: Mutex::default(),
            bytes: Mutex::default(),
        };
        let packing = &mut Packing::new(DType::F32, Device::cpu());
        let blocks = Blocks::new(ranges.iter().cloned());
        HunyuanTransformer::load_blocks(&config, &blocks, &Scope::root(&counted), packing).unwrap();
        let names = counted.read.into_inner().unwrap();
        let mut held = BTreeSet::new();
        for name in &names {
            let number = name
                .strip_prefix("blocks.")
                .and_then(|rest| rest.split('.').next());
            held.extend(number.map(|number| number.parse::<usize>().unwrap()));
        }
        assert_eq!(held, blocks.iter().collect::<BTreeSet<_>>());
        // The first stage has both ends of the model, and they are nobody else's.
        for end in [
            "pos_embed.proj.weight",
            "norm_out.linear.weight",
            "proj_out.weight",
        ] {
            assert_eq!(names.contains(end), stage == 0, "{end} on stage {stage}");
        }
        all.extend(names);
    }
    let weights = source.open_weights("transformer", None).unwrap();
    assert_eq!(all.len(), weights.tensors().count());
}

/// The bytes that loading went through: in earlier phases, and in this one.
#[derive(Default)]
struct Loaded(u64, u64);

impl Observer for Loaded {
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        match (phase, event) {
            (Phase::Load, PhaseEvent::Start { .. }) => *self = Self(self.total(), 0),
            (Phase::Load, PhaseEvent::Advance { done, .. }) => self.1 = done,
            _ => {}
        }
    }
}

impl Loaded {
    fn total(&self) -> u64 {
        self.0 + self.1
    }
}

#[test]
fn ranks_that_are_processes_load_a_stage_each() {
    // The model ends on the last stage of a line, and on the first one of a folded pipeline.
    load_a_stage_each("flux-dev", &request(), 2);
    load_a_stage_each(
        hunyuandit::MODEL,
        &hunyuandit::request(hunyuandit::DPM, 4),
        0,
    );
}

/// `first` is the rank that encodes.
fn load_a_stage_each(name: &str, request: &Request, first: usize) {
    let alone = latents(&over(golden(name), [1, 3, 1, 1], pipefusion(4, 1)), request);
    let (own, of_rank) = (name.to_owned(), request.clone());
    let ranks = threads::run(3, move |group| {
        let (name, request) = (&*own, &of_rank);
        let parallel = Parallel::group(degrees([1, 3, 1, 1]), group).pipefusion(pipefusion(4, 1));
        let mut loaded = Loaded::default();
        let pipe = Pipeline::load_over(&source(name), &options(), parallel, &mut loaded).unwrap();
        assert_eq!(
            loaded.total(),
            0,
            "only the call determines what the rank needs"
        );
        let output = pipe.generate(request, &mut loaded).unwrap();
        let read = loaded.total();
        // What was read once stays.
        let again = draw(&pipe, request);
        assert_eq!(
            again.latents.host_bytes_blocking().unwrap(),
            output.latents.host_bytes_blocking().unwrap()
        );
        Ok((output, read))
    });
    let ranks = ranks.expect("three ranks");
    let mut whole = Loaded::default();
    Pipeline::load(&source(name), &options(), &mut whole).unwrap();
    let files = source(name);
    let of_encoder = |folder: &&str| files.open_weights(folder, None).unwrap().total_bytes();
    let encoders: u64 = ["text_encoder", "text_encoder_2"]
        .iter()
        .map(of_encoder)
        .sum();
    for (rank, (output, read)) in ranks.iter().enumerate() {
        assert!(apart(&output.latents.to_vec_blocking::<f32>().unwrap(), &alone) <= SAME);
        // Five blocks over three stages, none holds more than two; or eight, none more than four. One rank encodes for all.
        let (encodes, whole) = (rank == first, whole.total());
        let stage = read.checked_sub(if encodes { encoders } else { 0 });
        assert!(
            stage.is_some_and(|stage| stage > 0 && stage < (whole - encoders) * 4 / 5),
            "rank {rank} read {read} bytes of {whole}, text encoders {encoders}"
        );
        // Each knows what all hold.
        assert_eq!(output.memory.len(), 3);
        assert!(output.memory.iter().all(|held| held.parameter_bytes > 0));
    }
}

/// Sleeps whenever weights are read or prompts are encoded.
struct Slow;

impl Observer for Slow {
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        if let (Phase::Load | Phase::Encode, PhaseEvent::Start { .. }) = (phase, event) {
            std::thread::sleep(Duration::from_millis(1500));
        }
    }
}

#[test]
fn ranks_that_read_and_encode_for_long_are_not_lost() {
    let options_of_ranks = threads::Options::deadline(Duration::from_millis(1000));
    for axes in [[1, 2, 1, 1], [1, 1, 1, 2]] {
        let outcomes = threads::run_each(2, options_of_ranks, move |group| {
            let slow: &mut dyn Observer = match group.rank() {
                0 => &mut (),
                _ => &mut Slow,
            };
            let parallel = Parallel::group(degrees(axes), group);
            let files = source("flux-dev");
            let pipe = Pipeline::load_over(&files, &options(), parallel, slow);
            let output = pipe.and_then(|pipe| pipe.generate(&request(), slow));
            output.map(drop).map_err(xdit_comm::Error::other)
        });
        let outcomes: Result<Vec<_>, _> = outcomes.into_iter().collect();
        assert!(outcomes.is_ok(), "{outcomes:?}");
    }
}
