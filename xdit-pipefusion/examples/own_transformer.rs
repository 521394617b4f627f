//! A transformer of your own over two stages and three patches: `cargo run --release -p xdit-pipefusion --example
//! own_transformer`. Each block has a `StaleKv` around its attention, and the blocks of a rank are a `Stage`.
//!
//! The program draws one small latent on one rank and on two ranks, and prints how far the keys and values of other patches
//! drifted from step to step, and how far the two results are apart.

use xdit_pipefusion::xdit_comm::{Spec, threads};
use xdit_pipefusion::xdit_kernels::attention::{Attention, AttnInput, Flash, Segment};
use xdit_pipefusion::xdit_kernels::linear::{Epilogue, Linear};
use xdit_pipefusion::xdit_kernels::{DType, Device, Tensor, View, elementwise, norm};
use xdit_pipefusion::{
    Driver, Error, Kept, PatchPlan, Result, Schedule, Stage, StagePlan, StaleKv, Turn, sampler_fn,
    xdit_comm, xdit_kernels,
};

// The sizes of the model, and of the image in rows of tokens.
const BLOCKS: usize = 4;
const CHANNELS: usize = 4;
const HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const HIDDEN: usize = HEADS * HEAD_DIM;
const ROWS: usize = 12;
const ROW_TOKENS: usize = 2;
const STEPS: usize = 8;

/// Weights that depend only on `seed`, in place of a file.
fn layer(seed: usize, [outputs, inputs]: [usize; 2], scale: f32) -> Result<Linear> {
    let weight = |i: usize| (((i * 37 + seed * 101) % 1009) as f32 * 0.7).sin() * scale;
    let weights: Vec<f32> = (0..outputs * inputs).map(weight).collect();
    let device = Device::cpu();
    let weights = View::from_slice(&weights, [outputs, inputs], &device)?;
    Ok(Linear::pack(weights, None, DType::F32, &device)?)
}

/// A block: norm, q k v, attention over all patches, projection, residual.
struct Block {
    qkv: Linear,
    out: Linear,
    /// Keeps the keys and values of all patches. Patch 0 is always computed first, so no query sees its old rows.
    attention: StaleKv<Flash>,
}

impl Block {
    fn new(index: usize, kept: &Kept) -> Result<Self> {
        Ok(Self {
            qkv: layer(10 + index, [3 * HIDDEN, HIDDEN], 0.3)?,
            out: layer(20 + index, [HIDDEN, HIDDEN], 0.3)?,
            attention: StaleKv::new(Flash, kept.clone(), 1),
        })
    }

    /// x `[1, l, HIDDEN]`: the rows of `segments`.
    fn forward(&mut self, x: &Tensor, segments: &[Segment]) -> Result<Tensor> {
        let normed = norm::rms_norm(x, None, 1e-6)?;
        let qkv = self.qkv.forward(&normed)?;
        let qkv = qkv.view().split_last(&[3, HEADS, HEAD_DIM])?;
        let (q, k, v) = (qkv.select(2, 0)?, qkv.select(2, 1)?, qkv.select(2, 2)?);
        let input = AttnInput::new(q, k, v).with_segments(segments);
        let attended = self.attention.attend(&input)?.out.reshape(x.shape())?;
        let residual = Epilogue::Residual(x.view());
        Ok(self.out.forward_with(&[attended.view()], residual)?)
    }
}

/// The blocks of one rank, with the layers before and after all blocks.
struct OwnStage {
    patches: PatchPlan,
    embed: Linear,
    blocks: Vec<Block>,
    project: Linear,
}

impl OwnStage {
    fn new(patches: PatchPlan, stages: &StagePlan, stage: usize, kept: &Kept) -> Result<Self> {
        let own = stages.blocks(stage);
        Ok(Self {
            patches,
            embed: layer(1, [HIDDEN, CHANNELS], 0.5)?,
            blocks: own
                .iter()
                .map(|block| Block::new(block, kept))
                .collect::<Result<_>>()?,
            project: layer(2, [CHANNELS, HIDDEN], 0.2)?,
        })
    }

    /// The rows of a turn: one patch, or all. Each patch is a stream of its own.
    fn segments(&self, turn: Turn) -> Vec<Segment> {
        let stream = |patch| {
            let len = self.patches.tokens(patch).len;
            Segment {
                stream: patch,
                start: 0,
                len,
                total: len,
            }
        };
        turn.part
            .patches(self.patches.count())
            .map(stream)
            .collect()
    }
}

impl Stage for OwnStage {
    type Error = Error;

    /// The shape of the tensor that the previous stage sends: the hidden states of the turn's rows.
    fn carried(&self, turn: Turn, _leg: usize) -> Vec<Spec> {
        let rows: usize = self.segments(turn).iter().map(|segment| segment.len).sum();
        vec![Spec::new([1, rows, HIDDEN], DType::F32)]
    }

    fn embed(&mut self, _turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>> {
        let patches: Vec<View<'_>> = latents.iter().map(Tensor::view).collect();
        Ok(vec![self.embed.forward(&Tensor::cat(&patches, 1)?)?])
    }

    fn blocks(&mut self, turn: Turn, _leg: usize, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let segments = self.segments(turn);
        let blocks = |x: Tensor| {
            let mut blocks = self.blocks.iter_mut();
            blocks.try_fold(x, |x, block| block.forward(&x, &segments))
        };
        hidden.into_iter().map(blocks).collect()
    }

    /// One prediction for each patch of the turn.
    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let [hidden] = &hidden[..] else {
            return Err(Error::other("expected the hidden states in one tensor"));
        };
        let prediction = self.project.forward(hidden)?;
        let mut start = 0;
        let patch = |segment: &Segment| {
            start += segment.len;
            Ok(prediction.narrow(1, start - segment.len, segment.len)?)
        };
        self.segments(turn).iter().map(patch).collect()
    }
}

/// The result of a run.
struct Drawn {
    /// The latents after all steps.
    latents: Vec<f32>,
    /// The drift of each step.
    drift: Vec<Option<f32>>,
    /// The bytes of kept keys and values on each rank.
    kept: Vec<usize>,
}

/// Draws over `ranks` stages.
fn draw(ranks: usize, patches: usize, warmup_steps: usize) -> xdit_comm::Result<Drawn> {
    let results = threads::run(ranks, move |pipe| {
        let patches = PatchPlan::new(ROWS, ROW_TOKENS, patches)?;
        let stages = StagePlan::balanced(&[1.0; BLOCKS], pipe.world_size())?;
        let kept = Kept::default();
        let mut stage = OwnStage::new(patches, &stages, pipe.rank(), &kept)?;
        // Euler: every step goes an eighth of the way.
        let mut sampler = sampler_fn(|_turn, prediction, latents| {
            let step = -1.0 / STEPS as f32;
            Ok(elementwise::add_scaled(latents, prediction, step)?)
        });
        let noise = |i: usize| ((i * i + 3 * i) as f32 * 0.37).sin();
        let latents = (0..patches.count()).map(|patch| {
            let rows = patches.tokens(patch);
            let values = rows.start * CHANNELS..rows.end() * CHANNELS;
            let values: Vec<f32> = values.map(noise).collect();
            Tensor::from_slice(&values, [1, rows.len, CHANNELS], &Device::cpu())
        });
        let latents = latents.collect::<xdit_kernels::Result<_>>()?;
        let schedule = Schedule {
            steps: STEPS,
            warmup_steps,
            patches: patches.count(),
        };
        let driver = Driver::new(schedule).pipe(pipe).kept(kept.clone());
        let (latents, report) = driver.run(&mut stage, &mut sampler, latents)?;
        let views: Vec<View<'_>> = latents.iter().map(Tensor::view).collect();
        let latents = Tensor::cat(&views, 1)?.to_vec_blocking::<f32>()?;
        Ok((latents, report.drift, kept.bytes()))
    })?;
    let kept = results.iter().map(|(_, _, bytes)| *bytes).collect();
    // The last stage has the result.
    let last = results.into_iter().next_back();
    let (latents, drift, _) = last.ok_or_else(|| xdit_comm::Error::other("no rank"))?;
    Ok(Drawn {
        latents,
        drift,
        kept,
    })
}

fn main() -> xdit_comm::Result<()> {
    let whole = draw(1, 1, STEPS)?.latents;
    let relative = |latents: &[f32]| {
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
        let apart = squares(&mut latents.iter().zip(&whole).map(|(a, b)| a - b));
        (apart / squares(&mut whole.iter().copied())).sqrt()
    };
    for warmup_steps in [STEPS, 2] {
        let Drawn {
            latents,
            drift,
            kept,
        } = draw(2, 3, warmup_steps)?;
        println!("2 stages, 3 patches, {warmup_steps} of {STEPS} steps whole:");
        println!("  kept keys and values of the ranks: {kept:?} bytes");
        let drift: Vec<String> = drift
            .into_iter()
            .map(|step| step.map_or("-".into(), |drift| format!("{drift:.3}")))
            .collect();
        println!("  drift of the steps: {}", drift.join(" "));
        let distance = relative(&latents);
        println!("  distance from one rank: {distance:.5} (relative L2)");
        let limit = if warmup_steps == STEPS { 1e-5 } else { 0.05 };
        match distance <= limit {
            true => {}
            false => {
                return Err(xdit_comm::Error::other(
                    "too far from the result of one rank",
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
