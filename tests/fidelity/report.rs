//! The tables and the plot of the measurements.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::subject::{PATCHES, STAGES, WARMUPS};
use super::{Failure, Key, Line, read};

/// Of the pictures of one plan.
struct Row {
    pictures: usize,
    psnr_median: f64,
    psnr_least: f64,
    max_abs: f64,
    /// Of those of which it can be known.
    right: Option<usize>,
    drift_median: f64,
}

fn row(lines: &[&Line]) -> Row {
    let sorted = |value: fn(&Line) -> f64| {
        let mut values: Vec<f64> = lines.iter().map(|line| value(line)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (psnr, drift) = (sorted(|line| line.psnr), sorted(|line| line.drift));
    Row {
        pictures: lines.len(),
        psnr_median: psnr[psnr.len() / 2],
        psnr_least: psnr[0],
        max_abs: sorted(|line| line.max_abs)[lines.len() - 1],
        right: lines.iter().map(|line| line.right.map(usize::from)).sum(),
        drift_median: drift[drift.len() / 2],
    }
}

/// The values that a field of the keys takes, in order.
fn values(lines: &[Line], field: fn(&Key) -> usize) -> Vec<usize> {
    let values: BTreeSet<usize> = lines.iter().map(|line| field(&line.key)).collect();
    values.into_iter().collect()
}

pub(super) fn report(file: &str, plot: Option<&str>) -> Result<(), Failure> {
    let lines = read(file)?;
    let panels = [
        values(&lines, |key| key.side),
        values(&lines, |key| key.steps),
    ];
    let of =
        |side: usize, steps: usize, stages: usize, patches: usize, warmup: usize| -> Vec<&Line> {
            let fits = |key: &Key| {
                [key.side, key.steps, key.stages, key.patches, key.warmup]
                    == [side, steps, stages, patches, warmup]
            };
            lines.iter().filter(|line| fits(&line.key)).collect()
        };
    let mut text = String::new();
    for &side in &panels[0] {
        for &steps in &panels[1] {
            let Some(stages) = STAGES
                .into_iter()
                .find(|n| !of(side, steps, *n, 1, 0).is_empty())
            else {
                continue;
            };
            let serial = row(&of(side, steps, stages, 1, 0));
            writeln!(text, "### {side}×{side}, {steps} steps\n")?;
            let told = serial.right.is_some();
            if let Some(right) = serial.right {
                writeln!(
                    text,
                    "Serial: {right} of {} pictures right.\n",
                    serial.pictures
                )?;
            }
            let right = if told { " right |" } else { "" };
            writeln!(
                text,
                "| N | M | W | PSNR median | least | max abs |{right} drift |"
            )?;
            let rule = if told { 8 } else { 7 };
            writeln!(text, "{}|", "|---".repeat(rule))?;
            for stages in STAGES {
                for patches in PATCHES {
                    for warmup in WARMUPS {
                        let lines = of(side, steps, stages, patches, warmup);
                        if lines.is_empty() {
                            continue;
                        }
                        let row = row(&lines);
                        let right = match row.right {
                            Some(right) => format!(" {right}/{} |", row.pictures),
                            None => String::new(),
                        };
                        writeln!(
                            text,
                            "| {stages} | {patches} | {warmup} | {:.1} dB | {:.1} dB | {:.3} |{right} {:.2} |",
                            row.psnr_median, row.psnr_least, row.max_abs, row.drift_median,
                        )?;
                    }
                }
            }
            writeln!(text)?;
        }
    }
    writeln!(text, "{}", stages_apart(&lines))?;
    print!("{text}");
    if let Some(plot) = plot {
        let median = |side, steps, patches, warmup| {
            let stages = STAGES
                .into_iter()
                .find(|n| !of(side, steps, *n, patches, warmup).is_empty())?;
            Some(row(&of(side, steps, stages, patches, warmup)).psnr_median)
        };
        let prompts = values(&lines, |key| key.prompt).len();
        std::fs::write(plot, draw(&panels, prompts, &median))?;
    }
    Ok(())
}

/// How far pictures of the same plan with other numbers of stages are apart.
fn stages_apart(lines: &[Line]) -> String {
    let [few, many] = STAGES;
    let (mut pairs, mut most) = (0, 0.0f64);
    for line in lines.iter().filter(|line| line.key.stages == few) {
        let other = Key {
            stages: many,
            ..line.key
        };
        if let Some(other) = lines
            .iter()
            .find(|line| line.key == other)
            .filter(|_| line.psnr.is_finite())
        {
            pairs += 1;
            most = most.max((line.psnr - other.psnr).abs());
        }
    }
    format!(
        "PSNR of the {pairs} pictures drawn with {few} and with {many} stages: at most {most:.3} dB apart."
    )
}

const PANEL: [f64; 2] = [250.0, 190.0];
const MARGIN: [f64; 2] = [52.0, 40.0];
const COLOURS: [&str; 3] = ["#1b6ca8", "#c8553d", "#588157"];

/// A panel for each size and number of steps: PSNR over warm-up steps, a line for each number of patches.
fn draw(
    [sides, steps]: &[Vec<usize>; 2],
    prompts: usize,
    median: &dyn Fn(usize, usize, usize, usize) -> Option<f64>,
) -> String {
    let all = sides.iter().flat_map(|side| {
        steps.iter().flat_map(move |steps| {
            PATCHES
                .iter()
                .flat_map(move |patches| WARMUPS.iter().map(move |w| (*side, *steps, *patches, *w)))
        })
    });
    let values: Vec<f64> = all.filter_map(|(s, n, p, w)| median(s, n, p, w)).collect();
    let least = (values.iter().copied().fold(f64::INFINITY, f64::min) / 10.0).floor() * 10.0;
    let most = (values.iter().copied().fold(0.0, f64::max) / 10.0).ceil() * 10.0;
    let (width, height) = (
        steps.len() as f64 * (PANEL[0] + MARGIN[0]) + 20.0,
        sides.len() as f64 * (PANEL[1] + MARGIN[1]) + 50.0,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, &side) in sides.iter().enumerate() {
        for (column, &steps) in steps.iter().enumerate() {
            let left = MARGIN[0] + column as f64 * (PANEL[0] + MARGIN[0]);
            let top = 24.0 + row as f64 * (PANEL[1] + MARGIN[1]);
            let x = |warmup: usize| left + PANEL[0] * warmup as f64 / 4.0;
            let y = |psnr: f64| top + PANEL[1] * (most - psnr) / (most - least).max(1.0);
            let _ = writeln!(
                svg,
                "<text x=\"{left}\" y=\"{}\">{side}×{side}, {steps} steps</text>",
                top - 6.0
            );
            let mut level = least;
            while level <= most {
                let at = y(level);
                let right = left + PANEL[0];
                let _ = writeln!(
                    svg,
                    "<line x1=\"{left}\" y1=\"{at}\" x2=\"{right}\" y2=\"{at}\" stroke=\"#ddd\"/>"
                );
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{level}</text>",
                    left - 5.0,
                    at + 4.0
                );
                level += 10.0;
            }
            for warmup in WARMUPS {
                let below = top + PANEL[1] + 14.0;
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{below}\" text-anchor=\"middle\">{warmup}</text>",
                    x(warmup)
                );
            }
            for (patches, colour) in PATCHES.into_iter().zip(COLOURS) {
                let points: Vec<String> = WARMUPS
                    .into_iter()
                    .filter_map(|w| {
                        Some(format!(
                            "{:.1},{:.1}",
                            x(w),
                            y(median(side, steps, patches, w)?)
                        ))
                    })
                    .collect();
                let points = points.join(" ");
                let _ = writeln!(
                    svg,
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
                );
            }
        }
    }
    for (i, (patches, colour)) in PATCHES.into_iter().zip(COLOURS).enumerate() {
        let (x, y) = (MARGIN[0] + 90.0 * i as f64, height - 22.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"3\" fill=\"{colour}\"/>",
            y - 4.0
        );
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{y}\">{patches} patches</text>",
            x + 19.0
        );
    }
    let caption =
        format!("Median PSNR in dB to the serial picture, over warm-up steps ({prompts} prompts)");
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\">{caption}</text>\n</svg>",
        MARGIN[0],
        height - 6.0
    );
    svg
}
