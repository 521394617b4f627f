//! What one axis of the mesh sends over the link between two hosts.

use std::time::Instant;
use xdit_comm::{Axis, Error, Group, Result};
use xdit_models::{
    Degrees, LoadOptions, ModelSource, Output, Parallel, PipeFusion, Pipeline, Request, axes,
};

/// Draws the demo over the ranks of `group`, of which two are on each host, and compares the picture with that of threads.
pub(crate) fn draw(group: &Group, [axis, size, steps]: [&str; 3]) -> Result<()> {
    let number = |text: &str| text.parse::<usize>().map_err(Error::other);
    let (size, steps) = (number(size)?, number(steps)?);
    let two = Degrees {
        ulysses: 2,
        ..Degrees::default()
    };
    // The outer axis of each is between the hosts.
    let (axis, degrees) = match axis {
        "ring" => (axes::RING, Degrees { ring: 2, ..two }),
        "ulysses" => {
            let order = "data,cfg,pipe,ulysses,ring".parse();
            let order = order.map_err(Error::other)?;
            (
                axes::ULYSSES,
                Degrees {
                    ring: 2,
                    order,
                    ..two
                },
            )
        }
        "pipe" => (axes::PIPE, Degrees { pipe: 2, ..two }),
        other => return Err(Error::other(format!("no axis {other}"))),
    };
    let request = Request::new(["a red circle on a blue background"])
        .height(size)
        .width(size)
        .num_inference_steps(steps);
    let drawn = |parallel: Parallel| -> Result<Output> {
        let options = LoadOptions {
            threads: Some(1),
            ..LoadOptions::default()
        };
        let pipe = Pipeline::load(&ModelSource::demo(), &options, &mut ());
        let patches = PipeFusion::default().patches(if degrees.pipe > 1 { 2 } else { 1 });
        let pipe = pipe.and_then(|pipe| pipe.parallel(parallel.pipefusion(patches)));
        let pipe = pipe.map_err(Error::other)?;
        pipe.generate(&request, &mut ()).map_err(Error::other)
    };
    let began = Instant::now();
    let mine = drawn(Parallel::group(degrees, group.clone()))?;
    let seconds = began.elapsed().as_secs_f64();
    let all = group.control().all_gather_f64(&sent(&mine, axis))?;
    if !mine.images.is_empty() {
        let threads = drawn(Parallel::threads(degrees))?;
        let rgb = |output: &Output| {
            output
                .images
                .iter()
                .map(|image| image.rgb.clone())
                .collect::<Vec<_>>()
        };
        if rgb(&mine) != rgb(&threads) {
            return Err(Error::other("the picture differs from that of threads"));
        }
    }
    // A difference is heard before rank 0 prints.
    group.barrier()?;
    if group.rank() == 0 {
        let sum = |index: usize| all.iter().map(|sent| sent[index]).sum::<f64>();
        println!(
            "{{\"bytes\": {}, \"calls\": {}, \"seconds\": {seconds}}}",
            sum(0),
            sum(1)
        );
    }
    Ok(())
}

/// The bytes that this rank sent on an axis, and its calls. Both are far from where an f64 cannot count.
fn sent(output: &Output, axis: Axis) -> [f64; 2] {
    let stats = output.communication.iter().flatten();
    let of_axis = stats.filter(|((_, of), _)| *of == Some(axis));
    of_axis.fold([0.0, 0.0], |[bytes, calls], (_, total)| {
        [bytes + total.bytes as f64, calls + total.calls as f64]
    })
}
