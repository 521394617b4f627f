//! One rank's stage of a transformer, for the denoising driver.

use std::collections::HashMap;

use xdit_cfg::{Branch, Guidance, Guided, RescaleSums};
use xdit_comm::Spec;
use xdit_kernels::attention::Attention;
use xdit_kernels::{Tensor, elementwise};
use xdit_pipefusion::{Blocks, Part, Stage, StagePlan, Turn};

use crate::error::{Error, Result};
use crate::models::dit::{Conditioning, Dit, Guide, Moment};
use crate::models::skips::Skips;
use crate::observer::Observer;
use crate::quote;
use crate::ranks::compose::{RankContext, StreamLayout};
use crate::ranks::rank_observer::RankObserver;
use crate::schedulers::Scheduler;

/// Some blocks of the transformer, with their inputs for these images.
pub(crate) struct DitStage<'a, D: Dit> {
    pub(crate) transformer: &'a D,
    pub(crate) stages: &'a StagePlan,
    /// The blocks of this stage.
    pub(crate) blocks: &'a Blocks,
    pub(crate) layout: &'a StreamLayout,
    /// This rank's passes.
    pub(crate) passes: Vec<Pass<D>>,
    /// The positions of this rank's rows: of all rows, then of each patch.
    pub(crate) places: Vec<D::Places>,
    pub(crate) images: usize,
    pub(crate) scheduler: &'a dyn Scheduler,
    pub(crate) guide: &'a Guide,
    pub(crate) guidance: Guidance,
    pub(crate) rank_context: &'a RankContext,
    /// The newest sums for the rescale of guidance, for each patch.
    pub(crate) rescale: Vec<Option<RescaleSums>>,
    pub(crate) watch: &'a RankObserver<'a>,
}

/// One branch of guidance. It runs once per turn, in the steps that use it.
pub(crate) struct Pass<D: Dit> {
    pub(crate) branch: Branch,
    /// This rank's rows of the text.
    text: D::Text,
    context: D::Context,
    /// The attentions of each block of the stage.
    attention: Vec<Box<dyn Attention>>,
    /// The modulation of each leg, and its step.
    modulation: HashMap<usize, (usize, D::Modulation)>,
    /// Outputs of blocks that later blocks still have to read, by turn.
    skips: HashMap<Turn, Skips>,
}

impl<D: Dit> Pass<D> {
    pub(crate) fn new(
        branch: Branch,
        text: D::Text,
        context: D::Context,
        attention: Vec<Box<dyn Attention>>,
    ) -> Self {
        Self {
            branch,
            text,
            context,
            attention,
            modulation: HashMap::new(),
            skips: HashMap::new(),
        }
    }

    /// Returns the bytes of the kept keys and values of the text.
    pub(crate) fn text_kv_len(&self) -> usize {
        D::text_kv_len(&self.context)
    }
}

impl<D: Dit> DitStage<'_, D> {
    /// Calls `see` with the observer of results inside the blocks. Only the conditional branch in the first step shows them, as
    /// the goldens do.
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
            false => see(&mut self.rank_context.silent()),
        }
    }

    fn places(&self, part: Part) -> &D::Places {
        match part {
            Part::Whole => &self.places[0],
            Part::Patch(patch) => &self.places[1 + patch],
        }
    }

    /// Returns the indices of the passes that a step uses.
    fn active(&self, step: usize) -> Vec<usize> {
        let scales = self
            .guide
            .plan
            .scales(step, self.scheduler.timesteps().len());
        let branches = self.guidance.branches(&scales);
        (0..self.passes.len())
            .filter(|pass| branches.contains(&self.passes[*pass].branch))
            .collect()
    }

    /// Computes the modulation of a leg in a step, in its first turn.
    fn modulate(&mut self, turn: Turn, leg: usize, pass: usize) -> Result<()> {
        let made = self.passes[pass].modulation.get(&leg);
        if made.is_some_and(|(step, _)| *step == turn.step) {
            return Ok(());
        }
        let moment = Moment {
            timestep: self.scheduler.timesteps()[turn.step],
            guidance_scale: self.guide.embedded,
            images: self.images,
        };
        let Pass {
            branch, context, ..
        } = &self.passes[pass];
        let skipped: &[usize] = match branch {
            Branch::SkipLayers => &self.guide.skipped,
            _ => &[],
        };
        let made = self.inside(turn, pass, |observer| {
            let blocks = self.stages.leg(leg);
            self.transformer
                .modulation(blocks, skipped, moment, context, observer)
        })?;
        let modulation = &mut self.passes[pass].modulation;
        modulation.insert(leg, (turn.step, made));
        self.rank_context.note()
    }

    fn modulation(&self, leg: usize, pass: usize) -> Result<&D::Modulation> {
        let made = self.passes[pass].modulation.get(&leg);
        made.map(|(_, modulation)| modulation).ok_or_else(|| {
            xdit_kernels::Error::shape(
                "stage",
                "blocks before the projection",
                format_args!("none"),
            )
            .into()
        })
    }

    /// Returns the range of a leg's attentions among those of the stage.
    fn attentions(&self, leg: usize) -> Result<std::ops::Range<usize>> {
        let blocks = self.stages.leg(leg);
        if self.blocks.place(&blocks).is_none() {
            let expected = format!("blocks of {}", quote::ranges(self.blocks.ranges()));
            return Err(xdit_kernels::Error::shape("stage", expected, blocks).into());
        }
        let shape = self.transformer.shape();
        let count = |block: usize| shape.attentions(block).iter().sum::<usize>();
        let before = self.blocks.iter().take_while(|block| *block < blocks.start);
        let start: usize = before.map(count).sum();
        Ok(start..start + blocks.map(count).sum::<usize>())
    }

    /// Returns the blocks of leg `from` whose outputs blocks of leg `to` read.
    fn handed(&self, from: usize, to: usize) -> Vec<usize> {
        let to = self.stages.leg(to);
        let shape = self.transformer.shape();
        let read = |block: &usize| {
            shape
                .reader(*block)
                .is_some_and(|block| to.contains(&block))
        };
        self.stages.leg(from).filter(read).collect()
    }

    /// Returns a guided prediction, rescaled if the request asks for it. The deviation is over the whole image. Patches that
    /// have not run in this step contribute their sums of the previous step, like their keys and values.
    fn rescaled(&mut self, part: Part, guided: Guided) -> Result<Tensor> {
        if !guided.needs_rescale() {
            return Ok(guided.into_prediction());
        }
        self.rank_context.settle()?;
        let mut start = 0;
        let patches = part.patches(self.rescale.len());
        for (patch, (_, rows)) in patches.zip(self.layout.image(part)) {
            let sums = guided.narrow(1, start, rows.len)?.sums()?;
            self.rescale[patch] = Some(self.rank_context.over_rows(sums)?);
            start += rows.len;
        }
        // The first step runs whole, so all patches have sums.
        let mut known = self.rescale.iter().flatten();
        let mut all = known.next().cloned().ok_or_else(|| {
            xdit_kernels::Error::shape("rescale", "a patch at least", self.rescale.len())
        })?;
        for sums in known {
            all.merge(sums)?;
        }
        Ok(guided.rescaled(&all)?)
    }

    /// Returns the spec of the stream in a turn.
    fn spec(&self, turn: Turn) -> Spec {
        let text = self.layout.text(turn.part).map_or(0, |rows| rows.len);
        let rows = text + self.layout.image_rows(turn.part);
        let c = self.transformer.shape().hidden_size();
        Spec::new([self.images, rows, c], self.transformer.dtype())
    }
}

impl<D: Dit> Stage for DitStage<'_, D> {
    type Error = Error;

    fn carried(&self, turn: Turn, _: usize) -> Vec<Spec> {
        vec![self.spec(turn); self.active(turn.step).len()]
    }

    fn skipped(&self, turn: Turn, from: usize, to: usize) -> Vec<Spec> {
        let handed = self.handed(from, to).len();
        vec![self.spec(turn); handed * self.active(turn.step).len()]
    }

    fn give(&mut self, turn: Turn, from: usize, to: usize) -> Result<Vec<Tensor>> {
        let handed = self.handed(from, to);
        let mut given = Vec::new();
        for pass in self.active(turn.step) {
            let skips = self.passes[pass].skips.entry(turn).or_default();
            for block in &handed {
                given.push(skips.take(*block)?);
            }
        }
        Ok(given)
    }

    fn receive(&mut self, turn: Turn, from: usize, to: usize, skips: Vec<Tensor>) -> Result<()> {
        let handed = self.handed(from, to);
        let mut given = skips.into_iter();
        for pass in self.active(turn.step) {
            let skips = self.passes[pass].skips.entry(turn).or_default();
            for (block, output) in handed.iter().zip(given.by_ref()) {
                skips.put(*block, output);
            }
        }
        Ok(())
    }

    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>> {
        let views: Vec<_> = latents.iter().map(Tensor::view).collect();
        let latents_blc = match latents {
            [one] => one.clone(),
            _ => Tensor::cat(&views, 1)?,
        };
        let latents_blc = match self.scheduler.model_input_divisor(turn.step) {
            None => latents_blc,
            Some(divisor) => elementwise::divide(&latents_blc, divisor)?,
        };
        self.active(turn.step)
            .into_iter()
            .map(|pass| {
                let text = match turn.part.has_text() {
                    true => self.passes[pass].text.clone(),
                    false => D::with_rows(&self.passes[pass].text, None)?,
                };
                let hidden = self.inside(turn, pass, |observer| {
                    let places = self.places(turn.part);
                    self.transformer
                        .embed(&latents_blc, &text, places, observer)
                })?;
                self.rank_context.note()?;
                Ok(hidden)
            })
            .collect()
    }

    fn settle(&self) -> Result<()> {
        self.rank_context.settle()
    }

    fn blocks(&mut self, turn: Turn, leg: usize, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let own = self.attentions(leg)?;
        self.active(turn.step)
            .into_iter()
            .zip(hidden)
            .map(|(pass, stream_blc)| {
                self.modulate(turn, leg, pass)?;
                let state = &mut self.passes[pass];
                let mut attention = std::mem::take(&mut state.attention);
                let mut skips = state.skips.remove(&turn).unwrap_or_default();
                let done = self.inside(turn, pass, |observer| {
                    self.transformer.run_blocks(
                        self.stages.leg(leg),
                        stream_blc,
                        Conditioning {
                            modulation: self.modulation(leg, pass)?,
                            places: self.places(turn.part),
                        },
                        &mut attention[own.clone()],
                        &mut skips,
                        observer,
                    )
                });
                let state = &mut self.passes[pass];
                state.attention = attention;
                if !skips.is_empty() {
                    state.skips.insert(turn, skips);
                }
                done
            })
            .collect()
    }

    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let active = self.active(turn.step);
        let last = self.stages.placement().legs(self.stages.count()) - 1;
        let predictions = active
            .iter()
            .zip(&hidden)
            .map(|(pass, stream_blc)| {
                self.inside(turn, *pass, |observer| {
                    let conditioning = Conditioning {
                        modulation: self.modulation(last, *pass)?,
                        places: self.places(turn.part),
                    };
                    self.transformer.project(stream_blc, conditioning, observer)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        self.rank_context.note()?;
        let scales = self
            .guide
            .plan
            .scales(turn.step, self.scheduler.timesteps().len());
        let guided = self.guidance.guide(&scales, &predictions)?;
        let branches = scales.branches();
        if branches.len() > 1 {
            // Predictions of other ranks too, which the exchange has brought.
            for (branch, prediction) in branches.iter().zip(guided.predictions()) {
                let name = match branch {
                    Branch::Conditional => "noise_pred_cond",
                    Branch::Unconditional => "noise_pred_uncond",
                    Branch::SkipLayers => "noise_pred_skip_layers",
                };
                self.watch.predicted(name, prediction.clone());
            }
        }
        let combined = self.rescaled(turn.part, guided)?;
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
