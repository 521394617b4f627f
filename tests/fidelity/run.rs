//! Drawing.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;

use serde_json::Value;
use xdit_comm::Degrees;
use xdit_models::{
    Image, LoadOptions, ModelSource, Output, Parallel, PipeFusion, Pipeline, Request,
};
use xdit_tests::facts::Prompts;

use super::{Failure, Key, Line, read};

pub(super) const SIDES: [usize; 2] = [256, 512];
pub(super) const STEPS: [usize; 2] = [20, 50];
pub(super) const STAGES: [usize; 2] = [2, 4];
pub(super) const PATCHES: [usize; 3] = [2, 4, 8];
pub(super) const WARMUPS: [usize; 4] = [0, 1, 2, 4];

/// A pipeline that can be spread anew for each picture.
struct Painter(Option<Pipeline>);

impl Painter {
    fn new() -> Result<Self, Failure> {
        let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
        Ok(Self(Some(pipe)))
    }

    fn draw(&mut self, fact: &Value, key: Key) -> Result<Output, Failure> {
        let pipefusion = PipeFusion::default()
            .patches(key.patches)
            .warmup_steps(key.warmup);
        let degrees = Degrees {
            pipe: if key.patches == 1 { 1 } else { key.stages },
            ..Degrees::default()
        };
        // Decoding on one rank, so that the denoising alone differs.
        let parallel = Parallel::threads(degrees).pipefusion(pipefusion).vae(false);
        let pipe = self
            .0
            .take()
            .ok_or("a draw failed before")?
            .parallel(parallel)?;
        let pipe = self.0.insert(pipe);
        let prompt = fact["prompt"].as_str().ok_or("a prompt")?;
        let request = Request::new([prompt])
            .seed(fact["seed"].as_u64().ok_or("a seed")?)
            .height(key.side)
            .width(key.side)
            .num_inference_steps(key.steps);
        Ok(pipe.generate(&request, &mut ())?)
    }
}

fn psnr(a: &Image, b: &Image) -> f64 {
    let squares = a
        .rgb
        .iter()
        .zip(&b.rgb)
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.rgb.len() as f64;
    10.0 * (255.0f64.powi(2) / mean).log10()
}

fn compared(key: Key, output: &Output, serial: &Output, right: bool) -> Line {
    let floats = |output: &Output| {
        output
            .float
            .as_ref()
            .map(|float| float.to_f32_vec())
            .unwrap_or_default()
    };
    let max_abs = floats(output)
        .iter()
        .zip(floats(serial))
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max);
    let report = &output.pipefusion[0];
    let lossy = (0..key.steps).filter(|step| !report.whole.contains(step));
    let drift = lossy
        .filter_map(|step| report.drift[step])
        .fold(0.0, f32::max);
    Line {
        key,
        psnr: psnr(&output.images[0], &serial.images[0]),
        max_abs,
        right,
        drift: drift.into(),
    }
}

pub(super) fn run(file: &str, only: Option<[usize; 3]>) -> Result<(), Failure> {
    let prompts = Prompts::read();
    let done: BTreeSet<Key> = read(file)?.into_iter().map(|line| line.key).collect();
    let mut out = OpenOptions::new().create(true).append(true).open(file)?;
    let mut painter = Painter::new()?;
    let all = SIDES.iter().flat_map(|side| {
        let steps = STEPS.iter();
        steps.flat_map(move |steps| STAGES.map(|stages| [*side, *steps, stages]))
    });
    let plans = match only {
        Some(one) => vec![one],
        None => all.collect(),
    };
    for [side, steps, stages] in plans {
        for (prompt, fact) in prompts.facts.iter().enumerate() {
            let serial = Key {
                side,
                steps,
                stages,
                patches: 1,
                warmup: 0,
                prompt,
            };
            let plans = PATCHES.into_iter().flat_map(|patches| {
                WARMUPS.map(|warmup| Key {
                    patches,
                    warmup,
                    ..serial
                })
            });
            let todo: Vec<Key> = plans.filter(|key| !done.contains(key)).collect();
            if todo.is_empty() {
                continue;
            }
            let whole = painter.draw(fact, serial)?;
            if !done.contains(&serial) {
                let right = prompts.shows(&whole.images[0], fact);
                writeln!(out, "{}", compared(serial, &whole, &whole, right))?;
            }
            let mut drawn: Vec<Line> = Vec::new();
            for key in todo {
                // The first step runs whole anyway: no warm-up is one step of it.
                let same = |line: &&Line| {
                    Key {
                        warmup: key.warmup,
                        ..line.key
                    } == key
                        && line.key.warmup.max(1) == key.warmup.max(1)
                };
                let line = match drawn.iter().find(same) {
                    Some(line) => Line { key, ..*line },
                    None => {
                        let output = painter.draw(fact, key)?;
                        let right = prompts.shows(&output.images[0], fact);
                        compared(key, &output, &whole, right)
                    }
                };
                writeln!(out, "{line}")?;
                drawn.push(line);
            }
            let (done, all) = (prompt + 1, prompts.facts.len());
            eprint!("\r{side}², {steps} steps, {stages} stages: prompt {done} of {all} ");
        }
        eprintln!();
    }
    Ok(())
}

/// Of the prompt that is drawn for a picture.
const SHOWN: usize = 7;
/// How much the difference is amplified.
const AMPLIFIED: i32 = 8;

/// Serial, PipeFusion, and eight times their difference around grey, side by side.
pub(super) fn picture(file: &str) -> Result<(), Failure> {
    let prompts = Prompts::read();
    let fact = prompts.facts.get(SHOWN).ok_or("so many prompts")?;
    let mut painter = Painter::new()?;
    let serial = Key {
        side: 256,
        steps: 20,
        stages: 2,
        patches: 1,
        warmup: 0,
        prompt: SHOWN,
    };
    let whole = painter.draw(fact, serial)?.images.swap_remove(0);
    let key = Key {
        patches: 8,
        warmup: 0,
        ..serial
    };
    let patched = painter.draw(fact, key)?.images.swap_remove(0);
    let difference: Vec<u8> = patched
        .rgb
        .iter()
        .zip(&whole.rgb)
        .map(|(a, b)| (128 + AMPLIFIED * (i32::from(*a) - i32::from(*b))).clamp(0, 255) as u8)
        .collect();
    let row = 3 * whole.width;
    let mut rgb = Vec::new();
    for y in 0..whole.height {
        for part in [&whole.rgb, &patched.rgb, &difference] {
            rgb.extend_from_slice(&part[y * row..(y + 1) * row]);
        }
    }
    let out = std::fs::File::create(file)?;
    let mut encoder = png::Encoder::new(
        std::io::BufWriter::new(out),
        3 * whole.width as u32,
        whole.height as u32,
    );
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&rgb)?;
    println!(
        "{}: {}, PSNR {:.1} dB",
        file,
        fact["prompt"],
        psnr(&patched, &whole)
    );
    Ok(())
}
