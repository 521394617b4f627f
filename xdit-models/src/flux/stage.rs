//! One rank's stage of a Flux transformer, as the denoising driver runs it.
//!
//! Shapes: b images, l tokens, c channels.

use std::ops::Range;

use xdit_comm::Spec;
use xdit_kernels::attention::Attention;
use xdit_kernels::{DType, Tensor};
use xdit_pipefusion::{Part, Stage, Turn};

use super::passes::Modulation;
use super::watch::Watch;
use super::{FluxText, FluxTransformer, RotaryTables};
use crate::compose::Layout;
use crate::error::{Error, Result};
use crate::observer::Observer;

/// Some blocks of the transformer with what they need of this image.
pub(super) struct FluxStage<'a> {
    pub(super) transformer: &'a FluxTransformer,
    pub(super) blocks: Range<usize>,
    pub(super) layout: &'a Layout,
    /// A branch for each prompt of an image, the positive one first.
    pub(super) branches: Vec<Branch>,
    /// Tables of this rank's rows: of all, then of each patch.
    pub(super) rotary: Vec<RotaryTables>,
    pub(super) images: usize,
    pub(super) timesteps: &'a [f32],
    pub(super) guidance_scale: f32,
    pub(super) true_cfg_scale: f32,
    pub(super) watch: &'a Watch<'a>,
}

/// One pass a turn.
pub(super) struct Branch {
    /// This rank's rows.
    pub(super) text: FluxText,
    /// An attention for each block.
    pub(super) attention: Vec<Box<dyn Attention>>,
    /// That of the step it was made for.
    modulation: Option<(usize, Modulation)>,
}

impl Branch {
    pub(super) fn new(text: FluxText, attention: Vec<Box<dyn Attention>>) -> Self {
        Self {
            text,
            attention,
            modulation: None,
        }
    }
}

impl FluxStage<'_> {
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

    fn rotary(&self, part: Part) -> &RotaryTables {
        match part {
            Part::Whole => &self.rotary[0],
            Part::Patch(patch) => &self.rotary[1 + patch],
        }
    }

    /// The modulation of a step, made by its first turn.
    fn modulate(&mut self, turn: Turn, branch: usize) -> Result<()> {
        if matches!(self.branches[branch].modulation, Some((step, _)) if step == turn.step) {
            return Ok(());
        }
        let timestep = vec![self.timesteps[turn.step] / 1000.0; self.images];
        let guidance = vec![self.guidance_scale; self.images];
        let pooled = &self.branches[branch].text.pooled;
        let made = self.inside(turn, branch, |observer| {
            self.transformer.modulation(
                self.blocks.clone(),
                &timestep,
                Some(&guidance),
                pooled,
                observer,
            )
        })?;
        self.branches[branch].modulation = Some((turn.step, made));
        Ok(())
    }

    fn modulation(&self, branch: usize) -> Result<&Modulation> {
        let made = self.branches[branch].modulation.as_ref();
        made.map(|(_, modulation)| modulation).ok_or_else(|| {
            xdit_kernels::Error::shape("flux", "blocks before the projection", "none").into()
        })
    }
}

impl Stage for FluxStage<'_> {
    type Error = Error;

    fn carried(&self, part: Part) -> Vec<Spec> {
        let text = self.layout.text(part).map_or(0, |rows| rows.len);
        let rows = text + self.layout.image_rows(part);
        let c = self.transformer.config().hidden_size();
        let spec = Spec::new([self.images, rows, c], self.transformer.dtype);
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
                    false => self.branches[branch].text.without_context(),
                };
                self.inside(turn, branch, |observer| {
                    self.transformer.embed(&latents_blc, &text, observer)
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
                        stream_blc,
                        self.modulation(branch)?,
                        self.rotary(turn.part),
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
        let text_len = self.rotary(turn.part).text_len();
        let predictions = hidden
            .iter()
            .enumerate()
            .map(|(branch, stream_blc)| {
                self.inside(turn, branch, |observer| {
                    let modulation = self.modulation(branch)?;
                    self.transformer
                        .project(stream_blc, text_len, modulation, observer)
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
