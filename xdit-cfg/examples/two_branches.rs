//! Guidance without a diffusion model: points of the plane are drawn to where a classifier wants them.
//! `cargo run -p xdit-cfg --example two_branches` runs it on one rank and on two.

use std::{thread::sleep, time::Duration, time::Instant};
use xdit_cfg::{Branch, Error, Guidance, GuidancePlan};
use xdit_comm::{Group, threads};
use xdit_kernels::{Device, Tensor, elementwise};

const STEPS: usize = 10;

/// The velocity towards the target of a branch. It takes a while, as a large model would.
fn predict(points: &Tensor, branch: Branch) -> Result<Tensor, Error> {
    sleep(Duration::from_millis(10));
    let target = match branch {
        Branch::Conditional => Tensor::from_slice(&[1f32, 1.0], [2], &Device::cpu())?,
        _ => Tensor::from_slice(&[0.5f32, 0.0], [2], &Device::cpu())?,
    };
    let away = elementwise::sub(points, &target)?;
    Ok(elementwise::scale(&away, -1.0)?)
}

fn run(plan: GuidancePlan, cfg: Option<Group>) -> Result<Tensor, Error> {
    let guidance = Guidance::new(cfg)?;
    let mut points = Tensor::from_slice(
        &[0f32, 0.0, -1.0, 2.0, 3.0, -0.5],
        [1, 3, 2],
        &Device::cpu(),
    )?;
    for step in 0..STEPS {
        let scales = plan.scales(step, STEPS);
        let branches = guidance.branches(&scales).iter();
        let predictions: Vec<_> = branches
            .map(|branch| predict(&points, *branch))
            .collect::<Result<_, _>>()?;
        let velocity = guidance.combine(&scales, &predictions)?;
        points = elementwise::add_scaled(&points, &velocity, 1.0 / STEPS as f32)?;
    }
    Ok(points)
}

fn main() -> Result<(), Error> {
    let plan = GuidancePlan {
        guidance_scale: 3.0,
        ..Default::default()
    };
    plan.check(2)?;

    let start = Instant::now();
    let one = run(plan, None)?.to_vec_blocking::<f32>().unwrap();
    println!("one rank   {:>4} ms  {one:?}", start.elapsed().as_millis());

    let start = Instant::now();
    let ranks = threads::run(2, move |cfg| {
        let points = run(plan, Some(cfg.clone()))?
            .to_vec_blocking::<f32>()
            .unwrap();
        Ok((points, cfg.stats()))
    })?;
    println!("two ranks  {:>4} ms", start.elapsed().as_millis());
    for (rank, (points, stats)) in ranks.iter().enumerate() {
        assert_eq!(*points, one, "two ranks give the bits of one");
        for ((op, _), did) in stats {
            println!(
                "  rank {rank}: {op}: {} calls, {} bytes",
                did.calls, did.bytes
            );
        }
    }
    Ok(())
}
