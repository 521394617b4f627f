//! Draws the images and measures them.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;

use xdit_models::Degrees;
use xdit_models::{LoadOptions, Output, Parallel, PipeFusion, Pipeline};
use xdit_tests::psnr::psnr_of_images;

use super::subject::{PATCHES, STAGES, Subject, WARMUPS};
use super::{Failure, Key, Line, read};

/// A pipeline that can be spread anew for each picture.
struct Painter<'a> {
    subject: &'a Subject,
    pipe: Option<Pipeline>,
}

impl<'a> Painter<'a> {
    fn new(subject: &'a Subject) -> Result<Self, Failure> {
        let pipe = Pipeline::load(&subject.source, &LoadOptions::default(), &mut ())?;
        Ok(Self {
            subject,
            pipe: Some(pipe),
        })
    }

    fn draw(&mut self, key: Key) -> Result<Output, Failure> {
        let pipefusion = PipeFusion::default()
            .patches(key.patches)
            .warmup_steps(key.warmup);
        let degrees = Degrees {
            pipe: if key.patches == 1 { 1 } else { key.stages },
            ..Degrees::default()
        };
        // Decoding on one rank, so that the denoising alone differs.
        let parallel = Parallel::threads(degrees).pipefusion(pipefusion).vae(false);
        let pipe = self.pipe.take().ok_or("a draw failed before")?;
        let pipe = self.pipe.insert(pipe.parallel(parallel)?);
        Ok(pipe.generate(&self.subject.request(key)?, &mut ())?)
    }
}

fn compared(key: Key, output: &Output, serial: &Output, right: Option<bool>) -> Line {
    let floats = |output: &Output| {
        output
            .float
            .as_ref()
            .map(|float| float.to_vec_blocking::<f32>().unwrap())
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
        psnr: psnr_of_images(&output.images[0], &serial.images[0]),
        max_abs,
        right,
        drift: drift.into(),
    }
}

pub(super) fn run(file: &str, subject: &str, only: Option<[usize; 3]>) -> Result<(), Failure> {
    let subject = Subject::find(subject)?;
    let done: BTreeSet<Key> = read(file)?.into_iter().map(|line| line.key).collect();
    let mut out = OpenOptions::new().create(true).append(true).open(file)?;
    let mut painter = Painter::new(&subject)?;
    let all = subject.sides.iter().flat_map(|side| {
        let steps = subject.steps.iter();
        steps.flat_map(move |steps| STAGES.map(|stages| [*side, *steps, stages]))
    });
    let plans = match only {
        Some(one) => vec![one],
        None => all.collect(),
    };
    for [side, steps, stages] in plans {
        for prompt in 0..subject.prompts.len() {
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
            let whole = painter.draw(serial)?;
            if !done.contains(&serial) {
                let right = subject.right(&whole.images[0], prompt);
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
                        let output = painter.draw(key)?;
                        let right = subject.right(&output.images[0], prompt);
                        compared(key, &output, &whole, right)
                    }
                };
                writeln!(out, "{line}")?;
                drawn.push(line);
            }
            let (done, all) = (prompt + 1, subject.prompts.len());
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
    let subject = Subject::demo()?;
    let mut painter = Painter::new(&subject)?;
    let serial = Key {
        side: 256,
        steps: 20,
        stages: 2,
        patches: 1,
        warmup: 0,
        prompt: SHOWN,
    };
    let whole = painter.draw(serial)?.images.swap_remove(0);
    let key = Key {
        patches: 8,
        warmup: 0,
        ..serial
    };
    let patched = painter.draw(key)?.images.swap_remove(0);
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
        subject.prompts[SHOWN].0,
        psnr_of_images(&patched, &whole)
    );
    Ok(())
}
