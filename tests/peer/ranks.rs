//! The same work on one rank with all threads and on several ranks that share them.

use super::{Case, Failure};
use std::hint::black_box;
use xdit_comm::{DeviceMesh, threads};
use xdit_kernels::attention::{Attention, Flash, Segment};
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::flux::{FluxInput, FluxTransformer, RotaryTables};
use xdit_models::{Degrees, axes};
use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request};
use xdit_usp::{ShardOrder, plan, usp};

/// A picture of the demo model, `side` pixels square.
pub(super) fn demo(
    side: usize,
    dtype: DType,
    device: &Device,
    degrees: Degrees,
) -> Result<Case, Failure> {
    let options = LoadOptions {
        dtype,
        device: device.clone(),
        threads: Some(rayon::current_num_threads()),
        ..Default::default()
    };
    let pipe = Pipeline::load(&ModelSource::demo(), &options, &mut ())?;
    let pipe = pipe.parallel(Parallel::threads(degrees))?;
    let request = Request::new(["a red circle on a blue background"])
        .height(side)
        .width(side);
    Ok(Box::new(move || {
        black_box(pipe.generate(&request, &mut ())?);
        Ok(())
    }))
}

/// A forward pass of `model` over ranks: what a pipeline does in a step, on the same number of threads in all.
pub(super) fn forward(
    model: FluxTransformer,
    latents: Tensor,
    [prompt, pooled]: [Tensor; 2],
    rotary: RotaryTables,
    degrees: Degrees,
) -> Case {
    let threads = rayon::current_num_threads();
    let shared = std::sync::Arc::new((model, latents, prompt, pooled, rotary));
    Box::new(move || {
        let world = degrees.product().unwrap_or(1);
        let shared = shared.clone();
        threads::run(world, move |group| {
            let (model, latents, prompt, pooled, rotary) = &*shared;
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads((threads / world).max(1))
                .build()
                .map_err(|e| xdit_comm::Error::Kernel(e.to_string()))?;
            pool.install(|| {
                let mesh = DeviceMesh::new(&group, degrees.shape())?;
                let plan = plan(&mesh, ShardOrder::Contiguous)?;
                let (ring, ulysses) = (mesh.coord(axes::RING)?, mesh.coord(axes::ULYSSES)?);
                let shard = |x: &Tensor| plan.shard(x.view(), 1, ring, ulysses);
                let segments = plan.segments(&[prompt.dim(1), latents.dim(1)], ring, ulysses);
                let [text, image]: [Segment; 2] = segments.try_into().expect("one run a stream");
                let told = |e: xdit_models::Error| xdit_comm::Error::Kernel(e.to_string());
                let mut attention = (0..model.block_count())
                    .map(|_| {
                        Ok(Box::new(usp(&mesh, ShardOrder::Contiguous, Flash)?)
                            as Box<dyn Attention>)
                    })
                    .collect::<xdit_comm::Result<Vec<_>>>()?;
                let text_rows = model.embed_text(&shard(prompt)?, pooled).map_err(told)?;
                let input = FluxInput {
                    latents: &shard(latents)?,
                    text: &text_rows,
                    timestep: &[0.7],
                    guidance: Some(&[3500.0]),
                    rotary: &rotary.part(Some(text), &[(0, image)]).map_err(told)?,
                };
                black_box(
                    model
                        .forward(&input, &mut attention, &mut ())
                        .map_err(told)?,
                );
                Ok(())
            })
        })?;
        Ok(())
    })
}
