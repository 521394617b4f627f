//! Draws one picture on four ranks (Ulysses 2 × ring 2), and the same picture on one:
//! `cargo run --release -p xdit-models --features demo --example parallel_flux`.

use xdit_models::Degrees;
use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request, Result};

fn main() -> Result<()> {
    let request = Request::new("a yellow square in the top right on a blue background")
        .height(336)
        .width(272);
    let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    let one = pipe.generate(&request, &mut ())?;

    let degrees = Degrees {
        ulysses: 2,
        ring: 2,
        ..Degrees::default()
    };
    let pipe = pipe.parallel(Parallel::threads(degrees))?;
    let four = pipe.generate(&request, &mut ())?;

    for (rank, stats) in four.communication.iter().enumerate() {
        for ((operation, axis), total) in stats {
            let axis = axis.map_or("world", |axis| axis.name());
            println!(
                "rank {rank}: {:4} {operation} over {axis}, {} bytes",
                total.calls, total.bytes
            );
        }
    }
    let levels = one.images[0].rgb.iter().zip(&four.images[0].rgb);
    let apart = levels.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    println!("{degrees}: at most {apart} of 255 levels from one rank's picture");
    Ok(())
}
