//! A small model with text, image, and blocks with and without attention, as stages; and a sampler with two-step history.
//!
//! The computation of a row is written once, here, and the naive simulation uses it too. The simulation decides itself which
//! rows it computes when, and which keys they see.

use std::collections::HashMap;
use std::error::Error;
use xdit_comm::Spec;
use xdit_kernels::{DType, Tensor};
use xdit_kernels::{
    Device,
    attention::{Attention, AttnInput, Flash, Segment},
};
use xdit_pipefusion::{Kept, Part, PatchPlan, Sampler, Stage, StagePlan, StaleKv, Turn};

pub(crate) const TEXT: usize = 5;
pub(crate) const ROWS: usize = 7;
pub(crate) const ROW_TOKENS: usize = 9;
pub(crate) const IMAGE: usize = ROWS * ROW_TOKENS;
pub(crate) const CHANNELS: usize = 2;
pub(crate) const HEADS: usize = 2;
pub(crate) const HIDDEN: usize = 8;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Row = [f32; HIDDEN];

fn weight(a: usize, b: usize) -> f32 {
    ((a * 37 + b * 101) as f32 * 0.7).sin()
}

pub(crate) fn embed_text(row: usize) -> Row {
    std::array::from_fn(|j| weight(500 + row, j))
}

pub(crate) fn embed_image(token: usize, x: &[f32]) -> Row {
    std::array::from_fn(|j| {
        let place = (0.11 * (token * (j + 1)) as f32).sin();
        x[0] * weight(1, j) + x[1] * weight(2, j) + 0.3 * place
    })
}

pub(crate) fn has_attention(block: usize) -> bool {
    block.is_multiple_of(2)
}

pub(crate) fn pointwise(block: usize, step: usize, row: &Row) -> Row {
    std::array::from_fn(|j| {
        let other = row[(j + 1) % HIDDEN] * weight(block, j);
        row[j] + 0.3 * other.tanh() + 0.02 * step as f32
    })
}

/// In a U-shaped model of so many blocks: which one reads the output of this one again.
pub(crate) fn reader(block: usize, blocks: usize) -> Option<usize> {
    (block + 1 < blocks / 2).then(|| blocks - 1 - block)
}

/// A row with what an earlier block made of it.
pub(crate) fn join(row: &Row, skip: &Row) -> Row {
    std::array::from_fn(|j| 0.8 * row[j] + 0.4 * (skip[j] * weight(800, j)).sin())
}

/// `which`: query, key, value.
pub(crate) fn qkv(block: usize, which: usize, row: &Row) -> Row {
    std::array::from_fn(|j| {
        let terms = row.iter().enumerate();
        let sum: f32 = terms
            .map(|(i, x)| x * weight(700 + 3 * block + which, i * HIDDEN + j))
            .sum();
        0.5 * sum
    })
}

pub(crate) fn project(row: &Row) -> [f32; CHANNELS] {
    std::array::from_fn(|c| {
        let terms = row.iter().enumerate();
        0.3 * terms.map(|(j, x)| x * weight(900 + c, j)).sum::<f32>()
    })
}

/// Noise `[IMAGE, CHANNELS]`.
pub(crate) fn noise(seed: usize) -> Vec<f32> {
    (0..IMAGE * CHANNELS).map(|i| weight(seed, 3 * i)).collect()
}

fn rows_of(tensor: &Tensor) -> Vec<Row> {
    let values = tensor.to_vec_blocking::<f32>().unwrap();
    let rows = values.chunks_exact(HIDDEN);
    rows.map(|row| std::array::from_fn(|j| row[j])).collect()
}

fn tensor_of(rows: &[Row], tail: &[usize]) -> xdit_kernels::Result<Tensor> {
    let shape = [&[1, rows.len()], tail].concat();
    Tensor::from_slice(&rows.concat(), shape.as_slice(), &Device::cpu())
}

/// Called before each block and each step of the sampler.
pub(crate) type Hook<'a> = dyn FnMut(Turn, Place) -> Result<(), Failure> + 'a;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Block,
    Sampler,
    StepEnd,
}

pub(crate) struct Toy<'a> {
    patches: PatchPlan,
    stages: StagePlan,
    u_shaped: bool,
    /// Those of this stage.
    attention: HashMap<usize, StaleKv<Flash>>,
    /// What blocks of this turn and earlier ones made, for other blocks to read.
    skips: HashMap<(Turn, usize), Tensor>,
    hook: Box<Hook<'a>>,
    /// How many predictions the last stage leaves out.
    pub(crate) missing: usize,
}

impl<'a> Toy<'a> {
    pub(crate) fn new(
        patches: PatchPlan,
        stages: StagePlan,
        u_shaped: bool,
        stage: usize,
        kept: &Kept,
        hook: Box<Hook<'a>>,
    ) -> Self {
        // Text and patch 0 come first in each step.
        let own = stages.blocks(stage);
        let attention = own.iter().filter(|block| has_attention(*block));
        Self {
            patches,
            u_shaped,
            attention: attention
                .map(|block| (block, StaleKv::new(Flash, kept.clone(), 2)))
                .collect(),
            skips: HashMap::new(),
            stages,
            hook,
            missing: 0,
        }
    }

    fn reader(&self, block: usize) -> Option<usize> {
        let blocks = self.stages.counts().iter().sum();
        reader(block, blocks).filter(|_| self.u_shaped)
    }

    /// The blocks of leg `from` whose output blocks of leg `to` read again.
    fn handed(&self, from: usize, to: usize) -> Vec<usize> {
        let to = self.stages.leg(to);
        let read = |block: &usize| {
            self.reader(*block)
                .is_some_and(|reader| to.contains(&reader))
        };
        self.stages.leg(from).filter(read).collect()
    }

    /// Of a turn.
    fn spec(&self, turn: Turn) -> Spec {
        let segments = self.segments(turn.part);
        let rows: usize = segments.iter().map(|segment| segment.len).sum();
        Spec::new([1, rows, HIDDEN], DType::F32)
    }

    fn segments(&self, part: Part) -> Vec<Segment> {
        let stream = |stream, len| Segment {
            stream,
            start: 0,
            len,
            total: len,
        };
        let text = part.has_text().then(|| stream(0, TEXT));
        let patches = part
            .patches(self.patches.count())
            .map(|patch| stream(1 + patch, self.patches.tokens(patch).len));
        text.into_iter().chain(patches).collect()
    }
}

impl Stage for Toy<'_> {
    type Error = Failure;

    fn carried(&self, turn: Turn, _leg: usize) -> Vec<Spec> {
        vec![self.spec(turn)]
    }

    fn skipped(&self, turn: Turn, from: usize, to: usize) -> Vec<Spec> {
        vec![self.spec(turn); self.handed(from, to).len()]
    }

    fn give(&mut self, turn: Turn, from: usize, to: usize) -> Result<Vec<Tensor>, Failure> {
        let handed = self.handed(from, to).into_iter();
        let made = handed.map(|block| {
            self.skips
                .remove(&(turn, block))
                .ok_or("made before".into())
        });
        made.collect()
    }

    fn receive(
        &mut self,
        turn: Turn,
        from: usize,
        to: usize,
        skips: Vec<Tensor>,
    ) -> Result<(), Failure> {
        let handed = self.handed(from, to).into_iter().zip(skips);
        self.skips
            .extend(handed.map(|(block, skip)| ((turn, block), skip)));
        Ok(())
    }

    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        let mut rows: Vec<Row> = Vec::new();
        if turn.part.has_text() {
            rows.extend((0..TEXT).map(embed_text));
        }
        let patches = turn.part.patches(self.patches.count());
        for (patch, latents) in patches.zip(latents) {
            let x = latents.to_vec_blocking::<f32>().unwrap();
            let start = self.patches.tokens(patch).start;
            let tokens = x.chunks_exact(CHANNELS).enumerate();
            rows.extend(tokens.map(|(i, x)| embed_image(start + i, x)));
        }
        Ok(vec![tensor_of(&rows, &[HIDDEN])?])
    }

    fn blocks(
        &mut self,
        turn: Turn,
        leg: usize,
        hidden: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, Failure> {
        let segments = self.segments(turn.part);
        let blocks: usize = self.stages.counts().iter().sum();
        let mut rows = rows_of(&hidden[0]);
        for block in self.stages.leg(leg) {
            (self.hook)(turn, Place::Block)?;
            let source = blocks - 1 - block;
            if source < block && self.reader(source).is_some() {
                let skip = self
                    .skips
                    .remove(&(turn, source))
                    .ok_or("a skip is missing")?;
                let skip = rows_of(&skip);
                rows.iter_mut()
                    .zip(&skip)
                    .for_each(|(row, skip)| *row = join(row, skip));
            }
            match self.attention.get_mut(&block) {
                None => rows
                    .iter_mut()
                    .for_each(|row| *row = pointwise(block, turn.step, row)),
                Some(attention) => attend(block, attention, &segments, &mut rows)?,
            }
            if self.reader(block).is_some() {
                self.skips
                    .insert((turn, block), tensor_of(&rows, &[HIDDEN])?);
            }
        }
        Ok(vec![tensor_of(&rows, &[HIDDEN])?])
    }

    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Failure> {
        let mut from = if turn.part.has_text() { TEXT } else { 0 };
        let rows = rows_of(&hidden[0]);
        let patches = turn.part.patches(self.patches.count());
        let predictions = patches.map(|patch| {
            let len = self.patches.tokens(patch).len;
            let made: Vec<_> = rows[from..from + len].iter().map(project).collect();
            from += len;
            Ok(Tensor::from_slice(
                &made.concat(),
                [1, len, CHANNELS],
                &Device::cpu(),
            )?)
        });
        let mut predictions = predictions.collect::<Result<Vec<_>, Failure>>()?;
        predictions.truncate(predictions.len() - self.missing);
        Ok(predictions)
    }
}

fn attend(
    block: usize,
    attention: &mut StaleKv<Flash>,
    segments: &[Segment],
    rows: &mut [Row],
) -> Result<(), Failure> {
    let of = |which| {
        let made: Vec<Row> = rows.iter().map(|row| qkv(block, which, row)).collect();
        tensor_of(&made, &[HEADS, HIDDEN / HEADS])
    };
    let (q, k, v) = (of(0)?, of(1)?, of(2)?);
    let seen = attention.attend(&AttnInput::new(&q, &k, &v).with_segments(segments))?;
    for (row, seen) in rows.iter_mut().zip(rows_of(&seen.out)) {
        row.iter_mut().zip(seen).for_each(|(x, y)| *x += y);
    }
    Ok(())
}

/// Adams and Bashforth's method of second order: it needs the prediction of the step before.
pub(crate) fn update(x: f32, now: f32, before: Option<f32>) -> f32 {
    let slope = before.map_or(now, |before| 1.5 * now - 0.5 * before);
    x - 0.2 * slope
}

pub(crate) struct TwoStep<'a> {
    pub(crate) hook: Box<Hook<'a>>,
    /// The image after each step.
    pub(crate) images: Vec<Vec<f32>>,
}

impl Sampler for TwoStep<'_> {
    type Error = Failure;
    type State = Option<Tensor>;

    fn step(
        &mut self,
        turn: Turn,
        _patch: usize,
        state: &mut Self::State,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor, Failure> {
        (self.hook)(turn, Place::Sampler)?;
        let before = state
            .replace(prediction.clone())
            .map(|t| t.to_vec_blocking::<f32>().unwrap());
        let now = prediction.to_vec_blocking::<f32>().unwrap();
        let x = latents.to_vec_blocking::<f32>().unwrap();
        let values: Vec<f32> = (0..x.len())
            .map(|i| update(x[i], now[i], before.as_ref().map(|before| before[i])))
            .collect();
        Ok(Tensor::from_slice(
            &values,
            latents.shape(),
            &Device::cpu(),
        )?)
    }

    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<(), Failure> {
        let part = Part::Whole;
        (self.hook)(Turn { step, part }, Place::StepEnd)?;
        assert_eq!(step, self.images.len(), "steps end in order");
        self.images.push(
            latents
                .iter()
                .flat_map(|x| x.to_vec_blocking::<f32>().unwrap())
                .collect(),
        );
        Ok(())
    }
}
