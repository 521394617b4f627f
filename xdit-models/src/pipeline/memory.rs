//! Counts the memory of a call from its plan and the configurations.

use xdit_kernels::DType;

use crate::models::dit::DitShape;
use crate::pipeline::estimate::MemoryEstimate;
use crate::pipeline::options::LoadOptions;
use crate::pipeline::request::MAX_SIDE;
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::store::ModelLoader;
use crate::ranks::parallel::{Parallel, RankBackend};
use crate::ranks::partition::Partition;
use crate::vae::{Tiling, VaeConfig, decoder_bytes, decoder_bytes_per_pixel};

/// The inputs of the count.
#[derive(Debug)]
pub(crate) struct Counted<'a> {
    pub(crate) plan: &'a ResolvedRequest,
    pub(crate) partition: &'a Partition,
    pub(crate) parallel: &'a Parallel,
    pub(crate) options: &'a LoadOptions,
    /// The number of prompts. Each is encoded once.
    pub(crate) prompts: usize,
    /// Whether steps draw noise. Each rank then draws it for all images.
    pub(crate) draws_noise: bool,
}

/// The fixed memory of a rank: messages, thread pool, views.
const RANK: u64 = 256 << 10;

impl Counted<'_> {
    /// Returns the whole estimate, wherever the memory is.
    pub(crate) fn estimate<R: ModelLoader>(&self, configs: &R) -> MemoryEstimate {
        let (plan, dtype) = (self.plan, self.options.dtype);
        let (shape, vae) = (configs.shape(), configs.vae());
        let sizes = configs.encoder_sizes();
        let names = configs.encoder_names();
        let encodes = self
            .parallel
            .encodes_here(self.partition.stages.placement());
        let encoders = names.into_iter().zip(&sizes).filter(|_| encodes);
        let rows = sizes.iter().map(|size| size.row_bytes(dtype));
        let rows = rows.max().unwrap_or(0);
        let blocks = match self.parallel.stage_here() {
            Some(stage) => self.partition.stages.blocks(stage),
            None => (0..shape.block_count()).into(),
        };
        let ranks = self.partition.ranks(plan, shape);
        let of_ranks = |bytes: &dyn Fn(&crate::RankPlan) -> u64| {
            let all = ranks.iter().map(bytes).fold(0, u64::saturating_add);
            all / self.parallel.processes() as u64
        };
        let text_kv = of_ranks(&|rank| rank.text_kv_bytes);
        MemoryEstimate {
            text_encoders: encoders
                .map(|(name, size)| (name, size.bytes(dtype)))
                .collect(),
            transformer: shape.stage_bytes(&blocks, dtype),
            vae: decoder_bytes(vae, dtype, &self.options.device),
            encoding: match encodes {
                true => product(&[self.prompts, plan.text_len, rows]),
                false => 0,
            },
            embeddings: self.embeddings(shape, self.parallel.degrees.pipe),
            latents: self.latents(shape),
            kept: of_ranks(&|rank| rank.kv_bytes).saturating_sub(text_kv),
            text_kv,
            denoising: self.denoising(shape, dtype),
            decoding: self.decoding(vae, dtype),
            // First the planes of each image, then one tensor of all. The planes are dropped before rounding to 8 bits.
            pictures: product(&[plan.images, 3, 4 + 4, plan.height, plan.width]),
            low_memory: self.options.low_memory,
            threads: self.threads(),
        }
    }

    fn is_alone(&self) -> bool {
        self.parallel.is_alone()
    }

    /// Returns the number of ranks that this process runs.
    pub(crate) fn ranks_here(&self) -> usize {
        match self.parallel.backend {
            RankBackend::Threads { .. } => self.parallel.degrees.product().unwrap_or(usize::MAX),
            RankBackend::Group(_) => 1,
        }
    }

    /// The compute threads of the pipeline.
    pub(crate) fn compute_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.options.threads.unwrap_or_else(cores)
    }

    /// The threads of the pipeline's pool. With several ranks, each rank is a thread with its own pool.
    fn threads(&self) -> u64 {
        let threads = self.compute_threads();
        let ranks = self.ranks_here();
        let of_ranks = match self.is_alone() {
            true => 0,
            false => ranks.saturating_add(threads.max(ranks)),
        };
        threads.saturating_add(of_ranks) as u64
    }

    /// Embeddings as the encoders produce them, for each prompt and repeated for its images; embeddings in the form of the
    /// transformer; and the parts of these of so many stages.
    pub(crate) fn embeddings(&self, shape: &dyn DitShape, stages: usize) -> u64 {
        let (plan, dtype) = (self.plan, self.options.dtype);
        let [encoded, embedded] = shape.text_widths();
        let of_images = encoded.saturating_add(embedded.saturating_mul(1 + stages));
        let of_images = product(&[plan.images, of_images]);
        let of_prompts = product(&[self.prompts, encoded]);
        let texts = product(&[self.partition.branch_count(), plan.text_len, dtype.size()]);
        of_images.saturating_add(of_prompts).saturating_mul(texts)
    }

    /// In f32: the noise, the latents of the call and of a step before and after it, the state of the scheduler, and each
    /// branch's prediction before and after guidance. If steps draw noise, each rank holds it twice.
    fn latents(&self, shape: &dyn DitShape) -> u64 {
        let plan = self.plan;
        let noise = if self.draws_noise {
            2 * self.ranks_here()
        } else {
            0
        };
        let copies = (6 + 2 * self.partition.branch_count()).saturating_add(noise);
        let tokens = [plan.images, plan.image_tokens(), shape.token_channels()];
        product(&tokens).saturating_mul(product(&[copies, DType::F32.size()]))
    }

    /// Each token of the stream takes 8 rows of its width: the residual stream, its normalised form, and queries, keys and
    /// values twice (as projected, and normalised and rotated). Each output that later blocks read takes one more row. The
    /// branches of a rank run one after another. Ranks also hold sent and received messages, which adds a half.
    fn denoising(&self, shape: &dyn DitShape, dtype: DType) -> u64 {
        let plan = self.plan;
        let degrees = self.parallel.degrees;
        let tokens = shape.stream_text(plan.text_len) + plan.image_tokens();
        let read_again = |block: &usize| shape.reader(*block).is_some();
        let skips = (0..shape.block_count()).filter(read_again).count();
        let branches = self.partition.branch_count();
        // In a pipeline, the outputs of all branches wait for later stages.
        let waiting = if degrees.pipe > 1 { branches } else { 1 };
        let at_once = degrees.cfg.min(branches).max(1);
        let rows = (8 * at_once).saturating_add(skips.saturating_mul(waiting));
        let bytes = product(&[plan.images, tokens, rows, shape.hidden_size(), dtype.size()]);
        match self.is_alone() {
            true => bytes,
            false => (bytes.saturating_add(bytes / 2))
                .saturating_add(RANK.saturating_mul(self.ranks_here() as u64)),
        }
    }

    /// For one image of each replica at a time: the input of a residual block, its normalised form and the output of the first
    /// convolution. With tiles, of one tile only. With bands, each rank also has six rows of pixels of its neighbours.
    fn decoding(&self, vae: &VaeConfig, dtype: DType) -> u64 {
        let plan = self.plan;
        let pixels = product(&[plan.height, plan.width]);
        let at_a_time = match plan.vae_tiling {
            true => {
                let side = (Tiling::new(vae).size * vae.scale_factor()).min(MAX_SIDE);
                pixels.min((side * side) as u64)
            }
            false => pixels,
        };
        let halo = match self.parallel.shares_decode() {
            true => {
                let channels = vae.block_out_channels.iter().take(2).max();
                let widest = channels.copied().unwrap_or(0);
                product(&[self.ranks_here(), 6, plan.width, widest, dtype.size()])
            }
            false => 0,
        };
        let tiles = match plan.vae_tiling {
            // The image and its row of tiles, as f32.
            true => product(&[2 * 3 * 4, plan.height, plan.width]),
            false => 0,
        };
        at_a_time
            .saturating_mul(decoder_bytes_per_pixel(vae, dtype))
            .saturating_mul(plan.decoded_at_once as u64)
            .saturating_add(halo)
            .saturating_add(tiles)
    }
}

pub(crate) fn product(factors: &[usize]) -> u64 {
    factors
        .iter()
        .fold(1, |product: u64, n| product.saturating_mul(*n as u64))
}

#[cfg(test)]
mod tests {
    use xdit_kernels::{Device, conv2d::Conv2dOptions};

    use super::*;
    use crate::error::Error;
    use crate::files::model_index::ModelIndex;
    use crate::files::source::ModelSource;
    use crate::pipeline::families;
    use crate::pipeline::request::Request;
    use crate::ranks::degrees::Degrees;

    fn golden(name: &str) -> ModelSource {
        let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/pipelines");
        ModelSource::folder(format!("{pipelines}/{name}")).unwrap()
    }

    fn estimate(source: &ModelSource, request: &Request, degrees: Degrees) -> MemoryEstimate {
        let options = LoadOptions {
            threads: Some(2),
            memory_limit: Some(u64::MAX),
            ..LoadOptions::default()
        };
        let parallel = Parallel::threads(degrees);
        let plan = crate::Pipeline::plan(source, &options, request, &parallel);
        plan.unwrap().memory
    }

    fn small() -> Request {
        Request::new("a")
            .height(64)
            .width(64)
            .num_inference_steps(1)
    }

    #[test]
    fn encoders_and_decoders_weigh_what_their_files_say() {
        for name in ["flux-dev", "sd35-medium", "hunyuan-v1.2"] {
            let source = golden(name);
            let told = estimate(&source, &small(), Degrees::default());
            let class = ModelIndex::read(&source).unwrap().pipeline;
            let sizes = (families::of_class(class).encoder_sizes)(&source).unwrap();
            assert_eq!(told.text_encoders.len(), sizes.len());
            for (component, bytes) in &told.text_encoders {
                let weights = source.open_weights(component, None).unwrap();
                let numbers = |shape: &[usize]| shape.iter().product::<usize>() as u64;
                let stored: u64 = weights
                    .tensors()
                    // Buffers, and layers that are not asked for.
                    .filter(|(name, _)| !name.contains("position_ids") && !name.contains("pooler"))
                    .map(|(_, info)| 4 * numbers(&info.shape))
                    .sum();
                let off = bytes.abs_diff(stored) as f64 / stored as f64;
                assert!(
                    off <= 0.05,
                    "{name} {component}: {bytes} told, {stored} stored"
                );
            }
            let vae = source.open_weights("vae", None).unwrap();
            let packed: u64 = vae
                .tensors()
                .filter(|(name, _)| {
                    name.starts_with("decoder.") || name.starts_with("post_quant_conv.")
                })
                .map(|(_, info)| match info.shape[..] {
                    [oc, ic, kh, kw] => Conv2dOptions::default()
                        .weight_form([oc, ic, kh, kw], DType::F32, &Device::cpu())
                        .matrix_bytes(oc, ic * kh * kw),
                    _ => 4 * info.shape.iter().product::<usize>() as u64,
                })
                .sum();
            let off = told.vae.abs_diff(packed) as f64 / packed as f64;
            assert!(
                off <= 0.01,
                "{name} vae: {} told, {packed} packed",
                told.vae
            );
        }
    }

    /// Both follow from the forms of the weights: the plan by the configurations, loading by what the models ask for. In the
    /// dtype of the files, since tables stay there.
    #[test]
    fn loading_checks_memory_for_what_the_plan_tells() {
        for name in ["flux-dev", "sd35-medium", "hunyuan-v1.2"] {
            let options = |memory_limit| LoadOptions {
                dtype: DType::BF16,
                memory_limit: Some(memory_limit),
                ..LoadOptions::default()
            };
            let (source, parallel) = (golden(name), Parallel::default());
            let plan = crate::Pipeline::plan(&source, &options(u64::MAX), &small(), &parallel);
            let told = plan.unwrap().memory.weights();
            let error = crate::Pipeline::load(&source, &options(0), &mut ()).unwrap_err();
            let Error::OutOfMemory { bytes, .. } = error else {
                panic!("{name}: {error}");
            };
            // Plans leave out the tables of positions.
            let off = told.abs_diff(bytes) as f64 / bytes as f64;
            assert!(off <= 0.05, "{name}: {told} told, {bytes} checked");
        }
    }

    #[test]
    fn a_text_that_is_read_is_kept_by_every_rank() {
        let source = golden("hunyuan-v1.2");
        let request = small().num_images_per_prompt(40);
        let ulysses = |ulysses| Degrees {
            ulysses,
            ..Degrees::default()
        };
        let one = estimate(&source, &request, ulysses(1)).text_kv;
        assert!(one > 0);
        assert_eq!(estimate(&source, &request, ulysses(16)).text_kv, 16 * one);
        // A stage reads with its own blocks only.
        let pipe = Degrees {
            pipe: 2,
            ..Degrees::default()
        };
        assert_eq!(estimate(&source, &request, pipe).text_kv, one);
        let flux = estimate(&golden("flux-dev"), &request, ulysses(16));
        assert_eq!(flux.text_kv, 0);
    }

    #[test]
    fn all_that_grows_is_counted() {
        let source = golden("sd35-medium");
        let of = |request: Request| estimate(&source, &request, Degrees::default());
        let one = of(small());
        let many = of(small().num_images_per_prompt(12_000));
        assert_eq!(many.weights(), one.weights());
        // One prompt's embeddings are there besides those of the images.
        assert!(many.embeddings > 10_000 * (one.embeddings / 2));
        for (part, single) in [
            (many.latents, one.latents),
            (many.denoising, one.denoising),
            (many.pictures, one.pictures),
        ] {
            assert_eq!(part, 12_000 * single);
        }
        assert_eq!(many.decoding, one.decoding);
        let prompts = of(Request {
            prompt: vec!["a".into(); 7],
            ..small()
        });
        assert_eq!(prompts.encoding, 7 * one.encoding);
        let large = of(small().height(128));
        assert!(large.decoding == 2 * one.decoding && large.denoising > one.denoising);
    }

    #[test]
    fn a_call_that_does_not_fit_says_what_it_needs() {
        let options = |memory_limit| LoadOptions {
            memory_limit: Some(memory_limit),
            ..LoadOptions::default()
        };
        let source = golden("flux-dev");
        let parallel = Parallel::default();
        let plan = |limit| crate::Pipeline::plan(&source, &options(limit), &small(), &parallel);
        let total = plan(u64::MAX).unwrap().memory.total();
        assert!(plan(total).is_ok());
        let error = plan(total - 1).unwrap_err();
        assert_eq!(error.category(), crate::ErrorCategory::OutOfMemory);
        let told = error.to_string();
        let bytes = crate::quote::bytes(total);
        let expected =
            format!("out of memory: 64 × 64 needs {bytes}, 1 B more than are available; try ");
        assert!(told.starts_with(&expected), "{told}");
    }
}
