//! Convolutions on the processor: distributes the tasks of an algorithm over threads.

mod call;
mod direct;
mod narrow;
mod pack;
mod product;
mod transform;
mod winograd;
mod words;

use super::options::Conv2dOptions;
use crate::{
    Result, View, ViewMut,
    dtype::by_float,
    rows::Operand,
    simd::{Lane, Shared},
    storage::Buffer,
};
use call::ConvCall;
pub(super) use pack::PackedConv2d;
use pack::PanelOrder;
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Writes the rows of the result from `first` on into `out`. The caller has checked shapes, dtypes and devices, and that `out`
/// is not empty.
pub(super) fn conv2d(
    packed: &PackedConv2d,
    options: &Conv2dOptions,
    x: View<'_>,
    residual: Option<View<'_>>,
    first: usize,
    out: ViewMut<'_>,
) -> Result<()> {
    let x = Operand::new(x, x.dtype())?;
    let residual = residual.map(|r| Operand::new(r, r.dtype())).transpose()?;
    let (x, residual) = (x.view(), residual.as_ref().map(Operand::view));
    by_float!("conv2d", x.dtype(), T => typed::<T>(packed, options, x, residual, first, out))
}

fn typed<T: Lane>(
    packed: &PackedConv2d,
    options: &Conv2dOptions,
    x: View<'_>,
    residual: Option<View<'_>>,
    first: usize,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let shift = usize::from(options.upsample);
    let head = |strides: &[usize]| [strides[0], strides[1], strides[2]];
    let [oc, ic, _, _] = packed.shape;
    let call = ConvCall::<T> {
        packed,
        x: x.ptr().cast(),
        x_strides: head(x.strides()),
        residual: residual.map(|r| r.ptr().cast()),
        residual_strides: residual.map_or([0; 3], |r| head(r.strides())),
        out_strides: head(out.strides()),
        batch: out.shape()[0],
        h: x.dim(1) << shift,
        w: x.dim(2) << shift,
        shift,
        top: (options.padding.top).wrapping_sub(first * options.stride),
        left: options.padding.left,
        oh: out.shape()[1],
        ow: out.shape()[2],
        ic,
        oc,
        stride: match (out.shape()[1], out.shape()[2]) {
            (1, 1) => 1,
            _ => options.stride,
        },
        out: Shared(out.ptr().cast()),
    };
    let tier = packed.tier;
    match packed.order {
        PanelOrder::Winograd => {
            let plan = winograd::WinogradPlan::new(&call);
            distribute(plan.tasks(&call), plan.scratch_len(), |scratch, task| {
                // SAFETY: the scratch has the plan's length, the call's pointers reach its shapes, and tasks write disjoint
                // tiles of the output.
                unsafe { winograd::block(tier, &call, &plan, scratch, task) }
            })
        }
        PanelOrder::Direct | PanelOrder::DirectPairs | PanelOrder::Narrow => {
            let plan = direct::DirectPlan::new(&call);
            distribute(
                plan.tasks(&call),
                plan.scratch_len(&call)?,
                |scratch, task| {
                    // SAFETY: as above.
                    unsafe { direct::block(tier, &call, &plan, scratch, task) }
                },
            )
        }
    }
}

/// Runs `task(scratch, i)` for each i below `count` on the current pool. Each thread has one scratch of `scratch_len` f32,
/// uninitialised or as its last task left it.
fn distribute(
    count: usize,
    scratch_len: usize,
    task: impl Fn(*mut f32, usize) + Sync,
) -> Result<()> {
    let workers = rayon::current_num_threads().min(count).max(1);
    // A cache line between the scratches.
    let stride = (scratch_len / 16).saturating_add(2).saturating_mul(16);
    let buffer = Buffer::of::<f32>("conv2d", &[workers, stride])?;
    let scratch = Shared(buffer.ptr().cast::<f32>());
    let next = AtomicUsize::new(0);
    (0..workers)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|worker| {
            // SAFETY: worker < workers, so the offset is inside the buffer; each worker has its own part.
            let own = unsafe { scratch.ptr().add(worker * stride) };
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                task(own, index);
            }
        });
    Ok(())
}
