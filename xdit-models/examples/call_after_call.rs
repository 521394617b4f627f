//! Measures repeated calls on the same pipeline: the time of the first call, and the median of the others.
//! `cargo run --release -p xdit-models --features demo --example call_after_call -- [calls]`.

use std::time::{Duration, Instant};

use xdit_models::{Degrees, LoadOptions, ModelSource, Parallel, Pipeline, Request, Result};

fn main() -> Result<()> {
    let calls = std::env::args().nth(1).and_then(|calls| calls.parse().ok());
    let calls: usize = calls.filter(|calls| *calls > 1).unwrap_or(50);
    let request = Request::new("a yellow square in the top right on a blue background")
        .height(64)
        .width(64)
        .num_inference_steps(1);
    for ulysses in [1, 2, 4] {
        let degrees = Degrees {
            ulysses,
            ..Degrees::default()
        };
        let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
        let pipe = pipe.parallel(Parallel::threads(degrees))?;
        let mut took = Vec::with_capacity(calls);
        for _ in 0..calls {
            let start = Instant::now();
            pipe.generate(&request, &mut ())?;
            took.push(start.elapsed());
        }
        let first = took.remove(0);
        took.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{degrees}: first {:.2} ms, then {:.2} ms (median of {})",
            ms(first),
            ms(took[took.len() / 2]),
            took.len()
        );
    }
    Ok(())
}
