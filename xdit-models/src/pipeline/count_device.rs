//! Counts the memory of a call that runs on a GPU: what lies there, and what is left in the process.
//!
//! A tensor's memory is free for the next one when it is dropped, so what counts is which tensors live at a time. The kernels
//! of several ranks on one GPU take turns, but their tensors live side by side.

use xdit_kernels::DType;
use xdit_pipefusion::Blocks;

use super::memory::{Counted, product};
use crate::RankPlan;
use crate::models::dit::{BlockRows, DitShape, RankTokens};
use crate::pipeline::device_memory::{GpuMemory, is_gpu};
use crate::pipeline::estimate::MemoryEstimate;
use crate::pipeline::store::ModelLoader;
use crate::vae::{VaeConfig, decoder_bytes_per_pixel, level_bytes_per_pixel};

/// What cuBLASLt may take for a product.
const PRODUCT_SCRATCH: u64 = 32 << 20;
/// The pinned buffers through which copies go to a GPU and from it.
const STAGING: u64 = 8 << 20;

impl Counted<'_> {
    /// Returns the memory of this process.
    pub(crate) fn in_process<R: ModelLoader>(&self, configs: &R) -> MemoryEstimate {
        let whole = self.estimate(configs);
        if !is_gpu(&self.options.device) {
            return whole;
        }
        let plan = self.plan;
        let noise = product(&[
            plan.images,
            plan.image_tokens(),
            configs.shape().token_channels(),
        ]);
        let numbers = product(&[plan.images, 3, plan.height, plan.width]);
        let encoders = whole.text_encoders.iter();
        MemoryEstimate {
            text_encoders: encoders.map(|(name, _)| (*name, 0)).collect(),
            transformer: 0,
            vae: 0,
            encoding: STAGING,
            embeddings: 0,
            // As drawn, and as f32.
            latents: noise.saturating_mul(2 * DType::F32.size() as u64),
            kept: 0,
            text_kv: 0,
            denoising: STAGING,
            decoding: STAGING,
            // The bytes of the images, and the values where the caller asks for them.
            pictures: numbers.saturating_mul(2),
            ..whole
        }
    }

    /// The ranks of this process on the pipeline's GPU.
    fn ranks_on_gpu(&self) -> usize {
        if self.parallel.devices().is_empty() {
            return self.ranks_here();
        }
        let own = &self.options.device;
        let devices = self.parallel.device_of_each(own);
        devices.iter().filter(|device| *device == own).count()
    }

    /// Returns the memory of the GPU, if one computes. Of several, it is the first one's, which takes the most: it also encodes
    /// and decodes. Weights and decoding count as if it did all of them.
    pub(crate) fn on_device<R: ModelLoader>(&self, configs: &R) -> Option<GpuMemory> {
        let device = &self.options.device;
        if !is_gpu(device) {
            return None;
        }
        let whole = self.estimate(configs);
        let shape = configs.shape();
        let (decoding, pictures) = self.decoding_on_device(configs.vae(), whole.decoding, shape);
        let ranks = self.partition.ranks(self.plan, shape);
        let here = &ranks[..self.ranks_on_gpu().min(ranks.len())];
        let of_ranks =
            |bytes: fn(&RankPlan) -> u64| here.iter().map(bytes).fold(0, u64::saturating_add);
        let text_kv = of_ranks(|rank| rank.text_kv_bytes);
        let parts = MemoryEstimate {
            kept: of_ranks(|rank| rank.kv_bytes).saturating_sub(text_kv),
            text_kv,
            latents: self.latents_on_device(shape),
            denoising: self.denoising_on_device(shape),
            decoding,
            pictures,
            ..whole
        };
        Some(GpuMemory {
            device: device.to_string(),
            parts,
            scratch: PRODUCT_SCRATCH,
            available: device.available_memory(),
        })
    }

    /// The latents of one copy of all images, f32.
    fn latents_once(&self, shape: &dyn DitShape) -> u64 {
        let plan = self.plan;
        let tokens = [plan.images, plan.image_tokens(), shape.token_channels()];
        product(&tokens).saturating_mul(DType::F32.size() as u64)
    }

    /// While blocks run: the first latents and those of the step. If steps draw noise, each rank holds it whole, and its part.
    fn latents_on_device(&self, shape: &dyn DitShape) -> u64 {
        let noise = match self.draws_noise {
            true => self.ranks_on_gpu().saturating_add(1),
            false => 0,
        };
        self.latents_once(shape).saturating_mul(2 + noise as u64)
    }

    /// The decoder's activations, and the images that are finished. While all of them are joined, the last one and the result take
    /// the place of activations.
    fn decoding_on_device(
        &self,
        vae: &VaeConfig,
        on_processor: u64,
        shape: &dyn DitShape,
    ) -> (u64, u64) {
        let (plan, dtype) = (self.plan, self.options.dtype);
        let (with_gap, without) = (
            decoder_bytes_per_pixel(vae, dtype),
            level_bytes_per_pixel(vae, dtype),
        );
        // The gaps of the processor's allocator are none of the pool's.
        let gaps = match plan.vae_tiling {
            true => (on_processor as f64 * (1.0 - without as f64 / with_gap.max(1) as f64)) as u64,
            false => product(&[plan.height, plan.width, plan.decoded_at_once])
                .saturating_mul(with_gap.saturating_sub(without)),
        };
        let image = product(&[3 * DType::F32.size(), plan.height, plan.width]);
        let finished = image.saturating_mul(plan.images.saturating_sub(1) as u64);
        let joined = image.saturating_mul(plan.images as u64 + 1);
        // The other ranks of the first replica have the final latents too.
        let degrees = self.parallel.degrees;
        let [sequence, stages] = [degrees.ulysses.saturating_mul(degrees.ring), degrees.pipe];
        let of_replica = product(&[sequence, stages, degrees.cfg]);
        let others = of_replica.min(self.ranks_on_gpu() as u64).saturating_sub(1);
        let of_others = self.latents_once(shape).saturating_mul(others);
        let activations = on_processor.saturating_sub(gaps);
        let decoding = activations.max(joined).saturating_add(of_others);
        (decoding, finished)
    }

    /// The streams between blocks, what a block holds, the outputs that later blocks read, and tables of positions, over all
    /// ranks that compute at a time. The branches of a rank run one after another, but their streams live side by side.
    fn denoising_on_device(&self, shape: &dyn DitShape) -> u64 {
        let plan = self.plan;
        let degrees = self.parallel.degrees;
        let (dtype, branches) = (self.options.dtype, self.partition.branch_count());
        let sequence = degrees.ulysses.saturating_mul(degrees.ring).max(1);
        let at_once = degrees.cfg.min(branches).max(1);
        let replicas = degrees.data.min(plan.images).max(1);
        let ranks = self.ranks_here();
        let tokens = RankTokens {
            text: shape.stream_text(plan.text_len).div_ceil(sequence),
            image: plan.image_tokens().div_ceil(sequence),
            images: plan.images.div_ceil(replicas),
            threads: self.compute_threads().div_ceil(ranks),
        };
        let all = tokens.all();
        let BlockRows { layers, attention } = shape.block_rows(tokens);
        let within =
            layers.max(attention.saturating_add(exchanged(degrees.ulysses, degrees.ring, all)));
        let read_again = |block: &usize| shape.reader(*block).is_some();
        let blocks: Blocks = (0..shape.block_count()).into();
        let skips = blocks.iter().filter(read_again).count();
        // What other branches of the rank wait with: their streams, and in a pipeline the outputs for later stages.
        let others = branches.div_ceil(at_once) - 1;
        let waiting = match degrees.pipe {
            1 => 1,
            _ => 1 + others,
        };
        let rows = (within.saturating_add(others.saturating_mul(all)))
            .saturating_add(skips.saturating_mul(waiting).saturating_mul(all));
        let values = product(&[tokens.images, rows, shape.hidden_size(), dtype.size()]);
        // After the blocks: the streams of all branches, their predictions, and what guidance and scheduler make of them. The
        // next step begins with the latents in the dtype of the model.
        let streams = product(&[tokens.images, branches.div_ceil(at_once), all]);
        let streams = streams.saturating_mul(product(&[shape.hidden_size(), dtype.size()]));
        let latents = product(&[tokens.images, tokens.image, shape.token_channels()]);
        let stepping = latents.saturating_mul(product(&[branches + 2, DType::F32.size()]));
        let stepping = stepping.saturating_add(latents.saturating_mul(dtype.size() as u64));
        let within_step = values.max(streams.saturating_add(stepping));
        // The whole tables, and those of the rank's rows in a whole step and in patches.
        let whole = shape.stream_text(plan.text_len) + plan.image_tokens();
        let positions = product(&[whole + 2 * all, shape.position_bytes()]);
        let modulation = product(&[
            tokens.images,
            branches,
            shape.modulation_values(),
            dtype.size(),
        ]);
        // Its rows of the text, if they are not all.
        let text = match sequence {
            1 => 0,
            _ => product(&[
                tokens.images,
                branches,
                tokens.text,
                shape.text_widths()[1],
                dtype.size(),
            ]),
        };
        let of_rank = [positions, modulation, text];
        let of_rank = of_rank.into_iter().fold(within_step, u64::saturating_add);
        let computing = product(&[sequence, at_once, replicas]);
        of_rank.saturating_mul(computing.min(self.ranks_on_gpu() as u64))
    }
}

/// The rows beside queries, keys and values while ranks exchange them. By Ulysses, all three over all tokens for some heads, and
/// either the messages to others, or the output, its messages, and the output for the own tokens; by a ring, the next keys and
/// values, and the output so far in f32.
fn exchanged(ulysses: usize, ring: usize, rows: usize) -> usize {
    let by_ulysses = match ulysses {
        1 => 0,
        _ => {
            let to_others = rows - rows / ulysses;
            3 * rows + (3 * to_others).max(2 * rows + to_others)
        }
    };
    let by_ring = if ring > 1 { 6 * rows } else { 0 };
    by_ulysses.saturating_add(by_ring)
}
