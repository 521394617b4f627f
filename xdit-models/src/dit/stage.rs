//! One rank's stage of a transformer, as the denoising driver runs it.

use std::ops::Range;

use xdit_comm::Spec;
use xdit_kernels::attention::Attention;
use xdit_kernels::{DType, Tensor};
use xdit_pipefusion::{Part, Stage, Turn};

use super::watch::Watch;
use super::{Dit, Moment};
use crate::compose::Layout;
use crate::error::{Error, Result};
use crate::observer::Observer;

/// Some blocks of the transformer with what they need of this image.
pub(super) struct DitStage<'a, D: Dit> {
    pub(super) transformer: &'a D,
    pub(super) blocks: Range<usize>,
    pub(super) layout: &'a Layout,
    /// A branch for each prompt of an image, the positive one first.
    pub(super) branches: Vec<Branch<D>>,
    /// Where this rank's rows stand: all, then those of each patch.
    pub(super) places: Vec<D::Places>,
    pub(super) images: usize,
    pub(super) timesteps: &'a [f32],
    pub(super) guidance_scale: f32,
    pub(super) true_cfg_scale: f32,
    pub(super) watch: &'a Watch<'a>,
}

/// One pass a turn.
pub(super) struct Branch<D: Dit> {
    /// This rank's rows.
    pub(super) text: D::Text,
    /// Those of each block.
    pub(super) attention: Vec<Box<dyn Attention>>,
    /// That of the step it was made for.
    modulation: Option<(usize, D::Modulation)>,
}

impl<D: Dit> Branch<D> {
    pub(super) fn new(text: D::Text, attention: Vec<Box<dyn Attention>>) -> Self {
        Self {
            text,
            attention,
            modulation: None,
        }
    }
}

impl<D: Dit> DitStage<'_, D> {
    /// What watches a branch from inside the blocks: only what the first step does is shown, as the goldens have it.
    fn inside<T>(
        &self,
        turn: Turn,
        branch: usize,
        see: impl FnOnce(&mut dyn Observer) -> Result<T>,
    ) -> Result<T> {
        match self.watch.sees_inside() && turn.step == 0 && branch == 0 {
            true => self.watch.with(see),
            false => see(&mut ()),
        }
    }

    fn places(&self, part: Part) -> &D::Places {
        match part {
            Part::Whole => &self.places[0],
            Part::Patch(patch) => &self.places[1 + patch],
        }
    }

    /// The modulation of a step, made by its first turn.
    fn modulate(&mut self, turn: Turn, branch: usize) -> Result<()> {
        if matches!(self.branches[branch].modulation, Some((step, _)) if step == turn.step) {
            return Ok(());
        }
        let moment = Moment {
            timestep: self.timesteps[turn.step],
            guidance_scale: self.guidance_scale,
            images: self.images,
        };
        let text = &self.branches[branch].text;
        let made = self.inside(turn, branch, |observer| {
            self.transformer
                .modulation(self.blocks.clone(), moment, text, observer)
        })?;
        self.branches[branch].modulation = Some((turn.step, made));
        Ok(())
    }

    fn modulation(&self, branch: usize) -> Result<&D::Modulation> {
        let made = self.branches[branch].modulation.as_ref();
        made.map(|(_, modulation)| modulation).ok_or_else(|| {
            xdit_kernels::Error::shape("stage", "blocks before the projection", "none").into()
        })
    }
}

impl<D: Dit> Stage for DitStage<'_, D> {
    type Error = Error;

    fn carried(&self, part: Part) -> Vec<Spec> {
        let text = self.layout.text(part).map_or(0, |rows| rows.len);
        let rows = text + self.layout.image_rows(part);
        let c = self.transformer.shape().hidden_size();
        let spec = Spec::new([self.images, rows, c], self.transformer.dtype());
        vec![spec; self.branches.len()]
    }

    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>> {
        let views: Vec<_> = latents.iter().map(Tensor::view).collect();
        let latents_blc = match latents {
            [one] => one.clone(),
            _ => Tensor::cat(&views, 1)?,
        };
        (0..self.branches.len())
            .map(|branch| {
                let text = match turn.part.has_text() {
                    true => self.branches[branch].text.clone(),
                    false => D::with_rows(&self.branches[branch].text, None)?,
                };
                self.inside(turn, branch, |observer| {
                    let places = self.places(turn.part);
                    self.transformer
                        .embed(&latents_blc, &text, places, observer)
                })
            })
            .collect()
    }

    fn blocks(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        hidden
            .into_iter()
            .enumerate()
            .map(|(branch, stream_blc)| {
                self.modulate(turn, branch)?;
                let mut attention = std::mem::take(&mut self.branches[branch].attention);
                let done = self.inside(turn, branch, |observer| {
                    self.transformer.run_blocks(
                        self.blocks.clone(),
                        &[],
                        stream_blc,
                        (self.modulation(branch)?, self.places(turn.part)),
                        &mut attention,
                        observer,
                    )
                });
                self.branches[branch].attention = attention;
                done
            })
            .collect()
    }

    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let predictions = hidden
            .iter()
            .enumerate()
            .map(|(branch, stream_blc)| {
                self.inside(turn, branch, |observer| {
                    let at = (self.modulation(branch)?, self.places(turn.part));
                    self.transformer.project(stream_blc, at, observer)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let combined = match <[Tensor; 2]>::try_from(predictions) {
            Err(mut one) => one.swap_remove(0),
            Ok([cond, uncond]) => {
                let guided = guide(&cond, &uncond, self.true_cfg_scale)?;
                self.watch.predicted("noise_pred_cond", cond);
                self.watch.predicted("noise_pred_uncond", uncond);
                guided
            }
        };
        self.watch.predicted("noise_pred", combined.clone());
        let mut start = 0;
        self.layout
            .image(turn.part)
            .into_iter()
            .map(|(_, rows)| {
                start += rows.len;
                Ok(combined.narrow(1, start - rows.len, rows.len)?)
            })
            .collect()
    }
}

/// One prediction out of the branches': `uncond + scale · (cond - uncond)`.
fn guide(cond: &Tensor, uncond: &Tensor, scale: f32) -> Result<Tensor> {
    debug_assert_eq!(cond.dtype(), DType::F32);
    let guided: Vec<f32> = cond
        .to_f32_vec()
        .iter()
        .zip(uncond.to_f32_vec())
        .map(|(cond, uncond)| uncond + scale * (cond - uncond))
        .collect();
    Ok(Tensor::from_slice(&guided, cond.shape())?.on(cond.device()))
}
