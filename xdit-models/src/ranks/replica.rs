//! The work of each rank of a replica, for the images of that replica: denoises latents, and decodes them.
//!
//! Each rank has its own rows of text and image, and its own blocks. Shapes: b images, l tokens, c channels.

use std::sync::Arc;

use xdit_cfg::Branch;
use xdit_comm::{Group, Shard, Spec};
use xdit_kernels::{DType, Tensor, elementwise};
use xdit_pipefusion::{Kept, Part, Report};

use super::sampling::Sampling;
use super::stage::{DitStage, Pass};
use crate::error::Result;
use crate::models::dit::Dit;
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::pipeline::finite::{Origin, Whose};
use crate::pipeline::rank_plan::RankMemory;
use crate::ranks::compose::RankContext;
use crate::ranks::job::Job;
use crate::ranks::keeping::Keeping;
use crate::ranks::rank_observer::RankObserver;
use crate::vae::Whole;

/// The images of one replica, ready to be denoised.
#[derive(Debug)]
pub(crate) struct Replica<D: Dit> {
    /// The whole call.
    pub(crate) call: Arc<Job<D>>,
    /// The images of this replica among those of the call.
    pub(crate) images: Shard,
    /// Their prompts, and the negative ones if the call needs them.
    pub(crate) text: Vec<D::Text>,
    /// Their latents before `first_step`, f32 `[b, l, c]`.
    pub(crate) latents_blc: Tensor,
    /// The first step that is not finished.
    pub(crate) first_step: usize,
    /// What the scheduler remembers of the steps before it, in the shape of the latents.
    pub(crate) history: Vec<Tensor>,
}

/// The result of denoising on one rank.
pub(crate) struct Denoised {
    /// The whole latents after all steps, f32 `[b, l, c]`.
    pub(crate) latents_blc: Tensor,
    pub(crate) report: Report,
    pub(crate) memory: RankMemory,
}

impl<D: Dit> Replica<D> {
    /// Returns whether the replica has images.
    pub(crate) fn draws(&self) -> bool {
        self.images.len > 0
    }

    /// Returns the latents after all steps.
    ///
    /// # Collective
    /// Every rank of the replica calls it, and with a limit of drift every rank of `deciders`.
    pub(crate) fn denoise(
        &self,
        rank_context: &RankContext,
        deciders: Option<Group>,
        observer: &mut dyn Observer,
    ) -> Result<Denoised> {
        let call = &*self.call;
        let (plan, partition, scheduler) = (&call.plan, &call.partition, &*call.scheduler);
        let transformer = &call.model_on(rank_context.device())?.transformer;
        let timesteps = scheduler.timesteps();
        observer.offer_values("timesteps", timesteps)?;
        if !scheduler.sigmas().is_empty() {
            observer.offer_values("sigmas", scheduler.sigmas())?;
        }
        let device = rank_context.device();
        let all_blc = self.latents_blc.to_device(device)?;
        let schedule = partition.schedule_from(self.first_step);
        let blocks = partition.stages.blocks(rank_context.stage());
        if self.first_step >= timesteps.len() {
            let mut report = Report::default();
            report.drift = vec![None; timesteps.len()];
            return Ok(Denoised {
                latents_blc: all_blc,
                report,
                memory: RankMemory::new(transformer.byte_len(&blocks), 0, 0),
            });
        }
        let places = transformer.places(plan.text_len, plan.tokens, device, observer)?;

        let _span = tracing::info_span!("denoise", steps = timesteps.len()).entered();
        let show = |tokens: &Tensor| transformer.shown(tokens, plan.latent_size);
        let keeps = call.checkpoint.is_some();
        let watch = RankObserver::new(observer, rank_context, keeps, &show)?;
        watch.begin(timesteps.len());
        let stream_text = transformer.shape().stream_text(plan.text_len);
        let layout = rank_context.layout(stream_text, partition.patches);
        let count = partition.patches.count();
        let parts = std::iter::once(Part::Whole).chain((0..count).map(Part::Patch));
        let kept = Kept::default();
        let shape = transformer.shape();
        let guidance = rank_context.guidance()?;
        let kept_by = schedule.is_lossy().then_some(&kept);
        let own = partition.branches_of(rank_context.branch());
        let passes = Branch::ALL
            .iter()
            .filter(|branch| own.contains(branch))
            .map(|branch| {
                // The branch that leaves layers out reads the prompt itself.
                let text = match branch {
                    Branch::Unconditional => &self.text[1],
                    _ => &self.text[0],
                };
                let attentions = blocks.iter().map(|block| shape.attentions(block));
                let count_of = |[joint, image]: [usize; 2]| joint + image;
                let nests = attentions.flat_map(|each| 0..count_of(each));
                let nests = nests.map(|_| rank_context.attention(kept_by));
                let text = D::each(text, &|x| Ok(x.to_device(device)?))?;
                let text = D::with_rows(&text, Some(&|whole| layout.shard_text(whole)))?;
                let seen = watch.sees_inside() && *branch == Branch::Conditional;
                let context = match seen {
                    true => watch.with(|observer| transformer.context(&blocks, &text, observer))?,
                    false => transformer.context(&blocks, &text, &mut rank_context.silent())?,
                };
                Ok(Pass::new(
                    *branch,
                    text,
                    context,
                    nests.collect::<Result<_>>()?,
                ))
            })
            .collect::<Result<_>>()?;
        let mut stage = DitStage {
            transformer,
            stages: &partition.stages,
            blocks: &blocks,
            layout: &layout,
            passes,
            places: parts
                .map(|part| D::part(&places, layout.text(part), &layout.image(part)))
                .collect::<Result<_>>()?,
            images: self.images.len,
            scheduler,
            guide: &plan.guide,
            guidance,
            rank_context,
            rescale: vec![None; count],
            watch: &watch,
        };
        let shape_blc = [self.images.len, plan.image_tokens(), shape.token_channels()];
        // Ranks of one process share the checkpoint.
        let stages = match keeps && partition.is_over_processes() {
            true => rank_context.beside_pipe()?,
            false => None,
        };
        let kept_in = call.checkpoint.as_ref();
        let keeping = kept_in.map(|to| Keeping::new(to, self.images, shape_blc, stages));
        // This rank's rows of each patch.
        let rows = |whole_blc: &Tensor| -> Result<Vec<Tensor>> {
            let whole_blc = whole_blc.to_device(device)?;
            (0..count)
                .map(|patch| layout.shard_patch(&whole_blc, patch))
                .collect()
        };
        let mut remembered = vec![Vec::new(); count];
        for whole_blc in &self.history {
            let of_patches = rows(whole_blc)?.into_iter();
            remembered
                .iter_mut()
                .zip(of_patches)
                .for_each(|(of, rows)| of.push(rows));
        }
        let mut sampling = Sampling {
            scheduler,
            rank_context,
            layout: &layout,
            watch: &watch,
            generators: call.generators.clone(),
            finite: &call.finite,
            all_images: plan.images,
            images: self.images,
            noise_shape: shape.shown_shape(plan.images, plan.latent_size),
            dtype: call.dtype,
            pack: &|latents| transformer.packed(latents),
            noise_blc: None,
            noise_step: 0,
            remembered,
            keeping,
            not_finite: None,
            latents_blc: None,
        };
        let latents = rows(&all_blc)?;
        drop(all_blc);
        let driver = rank_context.driver(schedule, partition.max_drift, &kept, deciders);
        let driver = driver.first_step(self.first_step);
        let (_, report) = driver.run(&mut stage, &mut sampling, latents)?;
        let text_kv = stage.passes.iter().map(Pass::text_kv_len).sum();
        let memory = RankMemory::new(transformer.byte_len(&blocks), kept.bytes(), text_kv);
        // Keys and values are not needed any more.
        drop(stage);
        let spec = Spec::new(shape_blc, DType::F32);
        let latents_blc = rank_context.spread_from_end(sampling.latents_blc, spec)?;
        if let Some(keeping) = sampling.keeping {
            keeping.end(timesteps.len(), &latents_blc)?;
        }
        watch.end();
        Ok(Denoised {
            latents_blc,
            report,
            memory,
        })
    }

    /// Decodes the images of final latents. Returns `[b, 3, height, width]` in [0, 1], on the first rank of the replica. It
    /// decodes one image at a time, which takes less memory and returns the same values.
    ///
    /// # Collective
    /// `together` every rank of the replica calls it, and they decode together; otherwise this rank decodes alone.
    pub(crate) fn decode(
        &self,
        latents_blc: &Tensor,
        rank_context: &RankContext,
        together: bool,
        observer: &mut dyn Observer,
    ) -> Result<Option<Tensor>> {
        let (call, images) = (&*self.call, self.images.len);
        let plan = &call.plan;
        let _span = tracing::info_span!("decode", images).entered();
        let model = call.model_on(rank_context.device())?;
        let vae = &model.vae;
        observer.phase(
            Phase::Decode,
            PhaseEvent::Start {
                total: images as u64,
            },
        );
        let config = vae.config();
        // In the form that the decoder reads, for some of the images.
        let decodable = |first: usize, count: usize| -> Result<Tensor> {
            let latents_blc = latents_blc.narrow(0, first, count)?;
            let scaled = elementwise::divide(&latents_blc, config.scaling_factor)?;
            let shifted = elementwise::scale_shift(&scaled, 1.0, config.shift_factor)?;
            model.transformer.unpack(&shifted, plan.latent_size)
        };
        if observer.wants_tensors() {
            observer.offer_picture("vae.input", &decodable(0, images)?)?;
        }
        let alone = Whole(rank_context.progress());
        let (mut decoded, mut planes) = (Vec::new(), Vec::new());
        for i in 0..images {
            let latent_bhwc = decodable(i, 1)?;
            let image_bhwc = match together {
                true => rank_context.decode(vae, &latent_bhwc)?,
                false if plan.vae_tiling => Some(vae.tiled(&latent_bhwc, &alone)?),
                false => {
                    Some(vae.forward_band(&latent_bhwc, &alone, &mut rank_context.silent())?)
                }
            };
            drop(latent_bhwc);
            rank_context.note()?;
            let Some(image_bhwc) = image_bhwc else {
                continue;
            };
            let planar = image_bhwc.view().permute(&[0, 3, 1, 2])?.to_tensor()?;
            drop(image_bhwc);
            rank_context.settle()?;
            let whose = Whose::images(self.images.start + i, plan.images);
            call.finite.check(&planar, whose, || Origin::Vae)?;
            let shifted = elementwise::scale_shift(&planar.to_dtype(DType::F32)?, 0.5, 0.5)?;
            planes.push(elementwise::clamp(&shifted, 0.0, 1.0)?);
            if observer.wants_tensors() {
                decoded.push(planar);
            }
            let done = i as u64 + 1;
            observer.phase(
                Phase::Decode,
                PhaseEvent::Advance {
                    done,
                    total: images as u64,
                },
            );
        }
        if planes.is_empty() {
            return Ok(None);
        }
        if observer.wants_tensors() {
            let views: Vec<_> = decoded.iter().map(Tensor::view).collect();
            observer.tensor("vae.output", &|| Ok(Tensor::cat(&views, 0)?))?;
        }
        observer.phase(Phase::Decode, PhaseEvent::End);
        let views: Vec<_> = planes.iter().map(Tensor::view).collect();
        let image = match &planes[..] {
            [one] => one.clone(),
            _ => Tensor::cat(&views, 0)?,
        };
        observer.offer("image", &image)?;
        Ok(Some(image))
    }
}
