//! Measures the cost of PipeFusion's stale keys and values. `docs/fidelity.md` explains how to run it.
//!
//! - `fidelity run FILE SUBJECT [SIDE STEPS STAGES]` draws the prompts of `demo`, or of a JSON file (`sd35-medium.json`), under
//!   every number of patches and warm-up steps, and appends a line of numbers for each picture. What the file has already is
//!   not drawn again.
//! - `fidelity report FILE [PLOT]` prints the tables, and writes a plot.
//! - `fidelity picture FILE` draws a picture of the demo serially and with PipeFusion, and their difference.

mod report;
mod run;
mod subject;

use std::process::ExitCode;

/// What ends the program.
type Failure = Box<dyn std::error::Error>;

/// One picture, compared with the serial one of its prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    key: Key,
    /// Of 8-bit levels, in dB; infinite where they are the same.
    psnr: f64,
    /// Of values in [0, 1] before rounding.
    max_abs: f64,
    /// Whether it shows what its prompt says, where that can be known.
    right: Option<bool>,
    /// The largest of any step that used stale keys and values.
    drift: f64,
}

/// What was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    side: usize,
    steps: usize,
    stages: usize,
    /// 1 for the serial picture.
    patches: usize,
    warmup: usize,
    prompt: usize,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Key {
            side,
            steps,
            stages,
            patches,
            warmup,
            prompt,
        } = self.key;
        write!(f, "{side} {steps} {stages} {patches} {warmup} {prompt} ")?;
        let right = match self.right {
            Some(true) => "1",
            Some(false) => "0",
            None => "-",
        };
        write!(
            f,
            "{:.3} {:.6} {right} {:.5}",
            self.psnr, self.max_abs, self.drift
        )
    }
}

impl std::str::FromStr for Line {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [
            side,
            steps,
            stages,
            patches,
            warmup,
            prompt,
            psnr,
            max_abs,
            right,
            drift,
        ] = fields[..]
        else {
            return Err(format!("not ten fields: {text}").into());
        };
        Ok(Self {
            key: Key {
                side: side.parse()?,
                steps: steps.parse()?,
                stages: stages.parse()?,
                patches: patches.parse()?,
                warmup: warmup.parse()?,
                prompt: prompt.parse()?,
            },
            psnr: psnr.parse()?,
            max_abs: max_abs.parse()?,
            right: match right {
                "-" => None,
                known => Some(known == "1"),
            },
            drift: drift.parse()?,
        })
    }
}

fn read(file: &str) -> Result<Vec<Line>, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => text.lines().map(str::parse).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["run", file, subject] => run::run(file, subject, None),
        ["run", file, subject, side, steps, stages] => {
            match (side.parse(), steps.parse(), stages.parse()) {
                (Ok(side), Ok(steps), Ok(stages)) => {
                    run::run(file, subject, Some([side, steps, stages]))
                }
                _ => Err("SIDE, STEPS and STAGES are numbers".into()),
            }
        }
        ["report", file] => report::report(file, None),
        ["report", file, plot] => report::report(file, Some(plot)),
        ["picture", file] => run::picture(file),
        _ => Err(
            "usage: fidelity run FILE SUBJECT [SIDE STEPS STAGES] | report FILE [PLOT] | picture FILE"
                .into(),
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
