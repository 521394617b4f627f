//! Counts the memory of a call that runs on a GPU: what lies there, and what is left in the process.
//!
//! A tensor's memory is free for the next one when it is dropped, so what counts is which tensors live at a time. The kernels
//! of several ranks on one GPU take turns, but their tensors live side by side.

use std::collections::BTreeSet;

use xdit_comm::Shard;
use xdit_kernels::{DType, Device};
use xdit_pipefusion::Blocks;

use super::memory::{Counted, product};
use crate::RankPlan;
use crate::models::dit::{DitShape, RankTokens};
use crate::pipeline::device_memory::{GpuMemory, is_gpu};
use crate::pipeline::estimate::MemoryEstimate;
use crate::pipeline::store::ModelLoader;
use crate::ranks::axes;
use crate::ranks::rank_devices::RankDevices;
use crate::vae::{VaeConfig, decoder_bytes_per_pixel, level_bytes_per_pixel};

/// What cuBLASLt may take for a product.
const PRODUCT_SCRATCH: u64 = 32 << 20;
/// The pinned buffers through which copies go to a GPU and from it.
const STAGING: u64 = 8 << 20;

/// What is counted on one GPU.
#[derive(Debug)]
struct Here {
    ranks: Vec<usize>,
    /// Whether it is the GPU of the pipeline, which encodes prompts and gets the images.
    own: bool,
}

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
        let devices = RankDevices::new(self.parallel, &self.options.device);
        let staging = STAGING.saturating_mul(devices.devices().len() as u64);
        let encoders = whole.text_encoders.iter();
        MemoryEstimate {
            text_encoders: encoders.map(|(name, _)| (*name, 0)).collect(),
            transformer: 0,
            vae: 0,
            encoding: staging,
            embeddings: 0,
            // As drawn, and as f32.
            latents: noise.saturating_mul(2 * DType::F32.size() as u64),
            kept: 0,
            text_kv: 0,
            denoising: staging,
            decoding: staging,
            // The bytes of the images, and the values where the caller asks for them.
            pictures: numbers.saturating_mul(2),
            ..whole
        }
    }

    /// Returns the memory of each GPU, that of the pipeline first. Empty if the processor computes.
    pub(crate) fn on_devices<R: ModelLoader>(&self, configs: &R) -> Vec<GpuMemory> {
        let own = &self.options.device;
        let devices = RankDevices::new(self.parallel, own);
        let gpus = devices.devices().into_iter().filter(|it| is_gpu(it));
        gpus.map(|device| self.on_device(configs, &devices, device))
            .collect()
    }

    fn on_device<R: ModelLoader>(
        &self,
        configs: &R,
        devices: &RankDevices,
        device: &Device,
    ) -> GpuMemory {
        let whole = self.estimate(configs);
        let (shape, dtype) = (configs.shape(), self.options.dtype);
        let here = Here {
            ranks: devices.ranks_on(device),
            own: *device == self.options.device,
        };
        let plans = self.partition.ranks(self.plan, shape);
        let plans: Vec<&RankPlan> = here.ranks.iter().filter_map(|it| plans.get(*it)).collect();
        let of_ranks = |bytes: fn(&RankPlan) -> u64| {
            let all = plans.iter().map(|plan| bytes(plan));
            all.fold(0, u64::saturating_add)
        };
        let text_kv = of_ranks(|rank| rank.text_kv_bytes);
        let all_blocks = (0..shape.block_count()).into();
        let blocks = devices.blocks_on(device, &self.partition.stages, all_blocks);
        let kept = of_ranks(|rank| rank.kv_bytes).saturating_sub(text_kv);
        let latents = self.latents_on_device(shape, &here);
        let (decoding, pictures) =
            self.decoding_on_device(configs.vae(), whole.decoding, shape, &here);
        let encoders = whole.text_encoders.iter();
        let encoders = encoders.map(|(name, bytes)| (*name, if here.own { *bytes } else { 0 }));
        let parts = MemoryEstimate {
            text_encoders: encoders.collect(),
            transformer: shape.stage_bytes(&blocks, dtype),
            encoding: if here.own { whole.encoding } else { 0 },
            embeddings: match here.own {
                true => self.embeddings(shape, self.stages_of(&here)),
                false => self.text_of_ranks(shape, &here),
            },
            kept,
            text_kv,
            latents,
            denoising: self.denoising_on_device(shape, &here, &blocks, kept),
            decoding,
            pictures,
            ..whole
        };
        GpuMemory {
            device: device.to_string(),
            parts,
            scratch: PRODUCT_SCRATCH,
            available: device.available_memory(),
        }
    }

    /// The number of stages that ranks on a GPU have.
    fn stages_of(&self, here: &Here) -> usize {
        let stage = |rank: &usize| self.parallel.degrees.coord(*rank, axes::PIPE);
        here.ranks.iter().map(stage).collect::<BTreeSet<_>>().len()
    }

    /// The copies of the prompts that ranks on another GPU than the pipeline's read by cross-attention. Prompts that are part of
    /// the stream count with the activations.
    fn text_of_ranks(&self, shape: &dyn DitShape, here: &Here) -> u64 {
        let plan = self.plan;
        if shape.stream_text(plan.text_len) > 0 {
            return 0;
        }
        let [_, embedded] = shape.text_widths();
        let branches = self.partition.branch_count();
        let images = plan.images.div_ceil(self.replicas());
        let of_rank = product(&[images, branches, plan.text_len, embedded]);
        of_rank.saturating_mul(product(&[here.ranks.len(), self.options.dtype.size()]))
    }

    /// The replicas that have images.
    fn replicas(&self) -> usize {
        self.parallel.degrees.data.min(self.plan.images).max(1)
    }

    /// The latents of one copy of all images, f32.
    fn latents_once(&self, shape: &dyn DitShape) -> u64 {
        let plan = self.plan;
        let tokens = [plan.images, plan.image_tokens(), shape.token_channels()];
        product(&tokens).saturating_mul(DType::F32.size() as u64)
    }

    /// While blocks run. The pipeline's GPU has the first latents and those of the step, another one those of the step of its
    /// ranks. If steps draw noise, each rank holds it whole, and its part.
    fn latents_on_device(&self, shape: &dyn DitShape, here: &Here) -> u64 {
        let once = self.latents_once(shape);
        let noise = match self.draws_noise {
            true => once.saturating_mul(here.ranks.len() as u64 + 1),
            false => 0,
        };
        let first = if here.own { once } else { 0 };
        let of_steps = first.saturating_add(self.rows_of_steps(once, here));
        of_steps.saturating_add(noise)
    }

    /// The latents of a step that the ranks of a GPU hold, each its rows. On the pipeline's they take the place of the first ones.
    fn rows_of_steps(&self, once: u64, here: &Here) -> u64 {
        let degrees = self.parallel.degrees;
        let sharing = product(&[degrees.ulysses, degrees.ring, self.replicas()]).max(1);
        let rows = (once / sharing).saturating_mul(here.ranks.len() as u64);
        if here.own { rows.min(once) } else { rows }
    }

    /// The decoder's activations, and the images that are finished. While all of them are joined, the last one and the result take
    /// the place of activations.
    fn decoding_on_device(
        &self,
        vae: &VaeConfig,
        on_processor: u64,
        shape: &dyn DitShape,
        here: &Here,
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
        let degrees = self.parallel.degrees;
        let (count, replicas) = (degrees.ranks_of_replica(), self.replicas());
        let placement = self.partition.stages.placement();
        let place = |rank: usize| degrees.place_in_replica(rank, placement);
        let replica = |rank: usize| degrees.coord(rank, axes::DATA);
        let drawing = || here.ranks.iter().filter(|rank| replica(**rank) < replicas);
        // Of the rows that all replicas decode at a time, those of the ranks here.
        let rows = plan.latent_size[0];
        let decoded: usize = match self.parallel.shares_decode() {
            true => drawing()
                .map(|rank| Shard::of(rows, count, place(*rank)).len)
                .sum(),
            false => rows * drawing().filter(|rank| place(**rank) == 0).count(),
        };
        let all_rows = (rows * plan.decoded_at_once).max(1) as u128;
        let activations = u128::from(on_processor.saturating_sub(gaps)) * decoded as u128;
        let activations = u64::try_from(activations / all_rows).unwrap_or(u64::MAX);
        // The pipeline's GPU gets all images, another one those of its replicas.
        let leading = drawing().filter(|rank| place(**rank) == 0);
        let led = leading.map(|rank| Shard::of(plan.images, degrees.data, replica(*rank)).len);
        let led: usize = led.sum();
        let images = if here.own { plan.images } else { led };
        let image = product(&[3 * DType::F32.size(), plan.height, plan.width]);
        let (finished, joined) = match images {
            0 => (0, 0),
            // From the GPU that decoded them, and then their bytes.
            _ if led == 0 && replicas == 1 => (0, image.saturating_mul(images as u64) / 4 * 5),
            _ => (
                image.saturating_mul(images as u64 - 1),
                image.saturating_mul(images as u64 + 1),
            ),
        };
        // Each rank has the final latents of its replica: the first one instead of those of the step.
        let once = self.latents_once(shape);
        let latents = (once / replicas as u64).saturating_mul(here.ranks.len() as u64);
        let latents = latents.saturating_sub(self.rows_of_steps(once, here));
        (activations.max(joined).saturating_add(latents), finished)
    }

    /// The streams between blocks, what a block holds, the outputs that later blocks read, and tables of positions, over all
    /// ranks that compute at a time. The branches of a rank run one after another, but their streams live side by side.
    ///
    /// A step over the whole image takes the most. In the first one, each block leaves its part of the `kept` keys and values behind,
    /// so that what follows is beside all of them: what these blocks take at a time, less what is kept at last.
    fn denoising_on_device(
        &self,
        shape: &dyn DitShape,
        here: &Here,
        blocks: &Blocks,
        kept: u64,
    ) -> u64 {
        let plan = self.plan;
        let degrees = self.parallel.degrees;
        let (dtype, branches) = (self.options.dtype, self.partition.branch_count());
        let sequence = degrees.ulysses.saturating_mul(degrees.ring).max(1);
        let at_once = degrees.cfg.min(branches).max(1);
        let replicas = self.replicas();
        let images = plan.images.div_ceil(replicas);
        let tokens = RankTokens {
            text: shape.stream_text(plan.text_len).div_ceil(sequence),
            image: plan.image_tokens().div_ceil(sequence),
        };
        let all = tokens.all();
        let bytes = |rows: usize| product(&[images, rows, shape.hidden_size(), dtype.size()]);
        // What other branches of the rank wait with: their streams, and in a pipeline the outputs for later stages.
        let others = branches.div_ceil(at_once) - 1;
        let waiting = match degrees.pipe {
            1 => 1,
            _ => 1 + others,
        };
        // The output of the block before is the stream, and a block joins what it reads again with that at once.
        let waits = |output: usize, block: usize| {
            let reader = shape.reader(output);
            output + 1 < block && reader.is_some_and(|reader| reader > block)
        };
        let kept = kept / here.ranks.len().max(1) as u64;
        let of_block = kept / product(&[branches, blocks.len()]).max(1);
        let values = blocks.iter().enumerate().map(|(i, block)| {
            let rows = shape.block_rows(block, tokens);
            let exchanging = exchanged(degrees.ulysses, degrees.ring, all);
            let late = rows.after.max(rows.attention.saturating_add(exchanging));
            // Of the last branch, this block and those after it have kept nothing yet.
            let missing = of_block.saturating_mul((blocks.len() - i) as u64);
            let before = bytes(rows.before).saturating_sub(missing);
            let after = bytes(late).saturating_sub(missing.saturating_sub(of_block));
            // Made here, or received for a block here.
            let is_here = |output: usize| {
                let reader = shape.reader(output);
                blocks.contains(output) || reader.is_some_and(|reader| blocks.contains(reader))
            };
            let outputs = 0..shape.block_count();
            let outputs = outputs.filter(|output| is_here(*output) && waits(*output, block));
            let waiting = product(&[outputs.count(), waiting, all]) as usize;
            before.max(after).saturating_add(bytes(waiting))
        });
        let values = values.max().unwrap_or(0);
        let values = values.saturating_add(bytes(others.saturating_mul(all)));
        // After the blocks: the streams of all branches, their predictions, and what guidance and scheduler make of them. The
        // next step begins with the latents in the dtype of the model.
        let streams = product(&[images, branches.div_ceil(at_once), all]);
        let streams = streams.saturating_mul(product(&[shape.hidden_size(), dtype.size()]));
        let latents = product(&[images, tokens.image, shape.token_channels()]);
        let stepping = latents.saturating_mul(product(&[branches + 2, DType::F32.size()]));
        let stepping = stepping.saturating_add(latents.saturating_mul(dtype.size() as u64));
        let end = self.partition.stages.placement().end(degrees.pipe);
        let steps = |rank: &usize| degrees.coord(*rank, axes::PIPE) == end;
        let stepping = match here.ranks.iter().any(steps) {
            true => stepping,
            false => 0,
        };
        let within_step = values.max(streams.saturating_add(stepping));
        // The whole tables, and those of the rank's rows in a whole step and in patches.
        let whole = shape.stream_text(plan.text_len) + plan.image_tokens();
        let positions = product(&[whole + 2 * all, shape.position_bytes()]);
        let modulation = product(&[images, branches, shape.modulation_values(), dtype.size()]);
        // Its rows of the text, if they are not all, or if the whole text is on another GPU.
        let text = match sequence == 1 && here.own {
            true => 0,
            false => product(&[
                images,
                branches,
                tokens.text,
                shape.text_widths()[1],
                dtype.size(),
            ]),
        };
        let of_rank = [positions, modulation, text];
        let of_rank = of_rank.into_iter().fold(within_step, u64::saturating_add);
        let computing = product(&[sequence, at_once, replicas]);
        of_rank.saturating_mul(computing.min(here.ranks.len() as u64))
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
