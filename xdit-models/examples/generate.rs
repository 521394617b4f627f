//! Draws one picture with the demo pipeline: `cargo run --release -p xdit-models --features demo --example generate`.

use std::ops::ControlFlow;
use xdit_models::{LoadOptions, ModelSource, Observer, Pipeline, Request, StepEnd};

struct Steps;

impl Observer for Steps {
    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        println!("step {} of {}", step.index + 1, step.total);
        ControlFlow::Continue(()) // Break stops the run
    }
}

fn main() -> xdit_models::Result<()> {
    let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    let request = Request::new("a yellow square in the top right on a blue background")
        .num_inference_steps(20)
        .seed(42);
    let image = &pipe.generate(&request, &mut Steps)?.images[0];
    image.save("square.png")
}
