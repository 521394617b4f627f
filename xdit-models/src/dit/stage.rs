//! One rank's stage of a transformer, as the denoising driver runs it.

use std::ops::Range;

use xdit_cfg::{Branch, Guidance};
use xdit_comm::Spec;
use xdit_kernels::Tensor;
use xdit_kernels::attention::Attention;
use xdit_pipefusion::{Part, Stage, Turn};

use super::watch::Watch;
use super::{Dit, Guide, Moment};
use crate::compose::Layout;
use crate::error::{Error, Result};
use crate::observer::Observer;

/// Some blocks of the transformer with what they need of this image.
pub(super) struct DitStage<'a, D: Dit> {
    pub(super) transformer: &'a D,
    pub(super) blocks: Range<usize>,
    pub(super) layout: &'a Layout,
    /// This rank's passes.
    pub(super) passes: Vec<Pass<D>>,
    /// Where this rank's rows stand: all, then those of each patch.
    pub(super) places: Vec<D::Places>,
    pub(super) images: usize,
    pub(super) timesteps: &'a [f32],
    pub(super) guide: &'a Guide,
    pub(super) guidance: Guidance,
    pub(super) watch: &'a Watch<'a>,
}

/// A branch of guidance: one pass a turn, in the steps that want it.
pub(super) struct Pass<D: Dit> {
    pub(super) branch: Branch,
    /// This rank's rows.
    pub(super) text: D::Text,
    /// Those of each block.
    pub(super) attention: Vec<Box<dyn Attention>>,
    /// That of the step it was made for.
    modulation: Option<(usize, D::Modulation)>,
}

impl<D: Dit> Pass<D> {
    pub(super) fn new(branch: Branch, text: D::Text, attention: Vec<Box<dyn Attention>>) -> Self {
        Self {
            branch,
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
        pass: usize,
        see: impl FnOnce(&mut dyn Observer) -> Result<T>,
    ) -> Result<T> {
        match self.watch.sees_inside()
            && turn.step == 0
            && self.passes[pass].branch == Branch::Conditional
        {
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

    /// The passes that a step wants, by number.
    fn active(&self, step: usize) -> Vec<usize> {
        let scales = self.guide.plan.scales(step, self.timesteps.len());
        let branches = self.guidance.branches(&scales);
        (0..self.passes.len())
            .filter(|pass| branches.contains(&self.passes[*pass].branch))
            .collect()
    }

    /// The modulation of a step, made by its first turn.
    fn modulate(&mut self, turn: Turn, pass: usize) -> Result<()> {
        if matches!(self.passes[pass].modulation, Some((step, _)) if step == turn.step) {
            return Ok(());
        }
        let moment = Moment {
            timestep: self.timesteps[turn.step],
            guidance_scale: self.guide.embedded,
            images: self.images,
        };
        let Pass { branch, text, .. } = &self.passes[pass];
        let skipped: &[usize] = match branch {
            Branch::SkipLayers => &self.guide.skipped,
            _ => &[],
        };
        let made = self.inside(turn, pass, |observer| {
            let blocks = self.blocks.clone();
            self.transformer
                .modulation(blocks, skipped, moment, text, observer)
        })?;
        self.passes[pass].modulation = Some((turn.step, made));
        Ok(())
    }

    fn modulation(&self, pass: usize) -> Result<&D::Modulation> {
        let made = self.passes[pass].modulation.as_ref();
        made.map(|(_, modulation)| modulation).ok_or_else(|| {
            xdit_kernels::Error::shape("stage", "blocks before the projection", "none").into()
        })
    }
}

impl<D: Dit> Stage for DitStage<'_, D> {
    type Error = Error;

    fn carried(&self, turn: Turn) -> Vec<Spec> {
        let part = turn.part;
        let text = self.layout.text(part).map_or(0, |rows| rows.len);
        let rows = text + self.layout.image_rows(part);
        let c = self.transformer.shape().hidden_size();
        let spec = Spec::new([self.images, rows, c], self.transformer.dtype());
        vec![spec; self.active(turn.step).len()]
    }

    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>> {
        let views: Vec<_> = latents.iter().map(Tensor::view).collect();
        let latents_blc = match latents {
            [one] => one.clone(),
            _ => Tensor::cat(&views, 1)?,
        };
        self.active(turn.step)
            .into_iter()
            .map(|pass| {
                let text = match turn.part.has_text() {
                    true => self.passes[pass].text.clone(),
                    false => D::with_rows(&self.passes[pass].text, None)?,
                };
                self.inside(turn, pass, |observer| {
                    let places = self.places(turn.part);
                    self.transformer
                        .embed(&latents_blc, &text, places, observer)
                })
            })
            .collect()
    }

    fn blocks(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        self.active(turn.step)
            .into_iter()
            .zip(hidden)
            .map(|(pass, stream_blc)| {
                self.modulate(turn, pass)?;
                let mut attention = std::mem::take(&mut self.passes[pass].attention);
                let done = self.inside(turn, pass, |observer| {
                    self.transformer.run_blocks(
                        self.blocks.clone(),
                        stream_blc,
                        (self.modulation(pass)?, self.places(turn.part)),
                        &mut attention,
                        observer,
                    )
                });
                self.passes[pass].attention = attention;
                done
            })
            .collect()
    }

    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let active = self.active(turn.step);
        let predictions = active
            .iter()
            .zip(&hidden)
            .map(|(pass, stream_blc)| {
                self.inside(turn, *pass, |observer| {
                    let at = (self.modulation(*pass)?, self.places(turn.part));
                    self.transformer.project(stream_blc, at, observer)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let scales = self.guide.plan.scales(turn.step, self.timesteps.len());
        if scales.branches().len() > 1 {
            for (pass, prediction) in active.iter().zip(&predictions) {
                let name = match self.passes[*pass].branch {
                    Branch::Conditional => "noise_pred_cond",
                    Branch::Unconditional => "noise_pred_uncond",
                    _ => "noise_pred_skip_layers",
                };
                self.watch.predicted(name, prediction.clone());
            }
        }
        let combined = self.guidance.combine(&scales, &predictions)?;
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
