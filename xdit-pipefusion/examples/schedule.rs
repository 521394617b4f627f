//! Draws stage × time of the first steps: `cargo run -p xdit-pipefusion --example schedule -- 4 6 1 4` for 4 stages,
//! 6 patches, 1 warm-up step, 4 steps; `folded` after them folds the pipeline.

use std::process::ExitCode;
use xdit_pipefusion::{Placement, Schedule};

/// Stages, patches, warm-up steps, steps, and the placement; what is missing or wrong otherwise.
fn arguments(given: impl Iterator<Item = String>) -> Result<([usize; 4], Placement), String> {
    let mut given: Vec<String> = given.collect();
    let mut placement = Placement::Linear;
    if given.last().is_some_and(|last| last == "folded") {
        placement = Placement::Folded;
        given.pop();
    }
    let numbers = given.iter().map(|text| {
        let number = text.parse::<usize>();
        number.map_err(|error| format!("{text}: {error}"))
    });
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    match numbers[..] {
        [stages, patches, warmup_steps, steps] if stages > 0 && patches > 0 => {
            Ok(([stages, patches, warmup_steps, steps], placement))
        }
        _ => Err("four numbers, of which the first two are not 0".to_owned()),
    }
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)) {
        Ok(([stages, patches, warmup_steps, steps], placement)) => {
            let schedule = Schedule {
                steps,
                warmup_steps,
                patches,
            };
            print!("{}", schedule.draw(placement, stages, steps));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!(
                "schedule: {problem}\nusage: schedule STAGES PATCHES WARMUP_STEPS STEPS [folded]"
            );
            ExitCode::from(2)
        }
    }
}
