//! The report: a page for people and lines of JSON for programs.

use crate::{
    Failure,
    results::{Measured, Results, row_side},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    fs,
    path::Path,
};

/// Writes `report.md` and `report.jsonl` to a folder, from what a run has left there.
///
/// # Errors
/// If a file cannot be read or written.
pub(crate) fn write(folder: &Path) -> Result<(), Failure> {
    let results = Results::read(folder)?;
    let mut page = String::new();
    page_of(&results, &mut page)?;
    fs::write(folder.join("report.md"), page)?;
    let facts = results.facts.iter();
    let facts = facts.map(|[name, value]| json!({"kind": "fact", "name": name, "value": value}));
    let lines = [results.device.clone()].into_iter().chain(facts);
    let lines = lines.chain(results.tests.iter().map(|test| test.json()));
    let lines = lines.chain(results.rows.iter().cloned());
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("report.jsonl"), lines)?;
    Ok(())
}

fn page_of(results: &Results, out: &mut String) -> fmt::Result {
    let device = &results.device;
    let text = |name: &str| device[name].as_str().unwrap_or("unknown").to_owned();
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    writeln!(out, "# {}\n", text("name"))?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| compute capability | {} |", text("capability"))?;
    let memory = device["memory"].as_f64().unwrap_or(0.0);
    writeln!(out, "| memory | {} |", gib(memory))?;
    writeln!(out, "| CUDA of the driver | {} |", text("cuda"))?;
    for [name, value] in &results.facts {
        writeln!(out, "| {name} | {value} |")?;
    }
    for row in results.rows.iter().filter(|row| row["kind"] == "versions") {
        // Of each round; they are the same.
        if row["round"].as_u64() == Some(1) {
            for (name, version) in row.as_object().into_iter().flatten() {
                if !["kind", "round"].contains(&name.as_str()) {
                    let version = version.to_string();
                    let version = version.trim_matches('"');
                    writeln!(out, "| PyTorch's side: {name} | {version} |")?;
                }
            }
        }
    }
    tests(results, out)?;
    benchmark(results, out)?;
    failures(results, out)
}

fn tests(results: &Results, out: &mut String) -> fmt::Result {
    let passed = results.tests.iter().filter(|test| test.passed()).count();
    let failed = results.tests.len() - passed;
    writeln!(out, "\n## Tests\n\n{passed} passed, {failed} failed.\n")?;
    writeln!(out, "| test | result | seconds |\n|---|---|---|")?;
    for test in &results.tests {
        writeln!(
            out,
            "| {} | {} | {} |",
            test.name, test.outcome, test.seconds
        )?;
    }
    Ok(())
}

/// What the device can do at most, measured: bytes and operations of products in a second.
struct Peaks {
    bytes: f64,
    flops: f64,
}

impl Peaks {
    fn of(ours: &BTreeMap<&str, Measured>) -> Self {
        let most = |prefix: &str, per_second: &dyn Fn(&Measured) -> f64| {
            let cases = ours.iter().filter(|(case, _)| case.starts_with(prefix));
            cases.fold(0.0, |most: f64, (_, case)| most.max(per_second(case)))
        };
        Self {
            bytes: most("copy", &|case| case.bytes / case.seconds()),
            flops: most("linear", &|case| case.flops / case.seconds()),
        }
    }

    /// The least time that a case could take.
    fn floor(&self, case: &Measured) -> f64 {
        (case.bytes / self.bytes).max(case.flops / self.flops)
    }
}

fn benchmark(results: &Results, out: &mut String) -> fmt::Result {
    let ours = results.measured("xdit");
    if ours.is_empty() {
        return writeln!(out, "\n## Benchmark\n\nIt did not run.");
    }
    let peaks = Peaks::of(&ours);
    let (bandwidth, products) = (peaks.bytes / 1e9, peaks.flops / 1e12);
    writeln!(
        out,
        "\n## Benchmark\n\nMedians, in bf16. The floor of a case is the time in which a copy moves its bytes ({bandwidth:.0} GB/s), \
         or in which the fastest linear layer does its operations ({products:.1} TFLOP/s), whichever is longer. A ratio is \
         torch's time divided by ours: above 1 we are faster.\n"
    )?;
    let sides = results.torch_sides();
    let theirs: Vec<_> = sides.iter().map(|side| results.measured(side)).collect();
    let heads: String = sides
        .iter()
        .map(|side| format!(" {side}, ms | ratio |"))
        .collect();
    writeln!(
        out,
        "| case | samples | ms | TFLOP/s | of the floor | peak memory |{heads}"
    )?;
    writeln!(
        out,
        "|---|---|---|---|---|---|{}",
        "---|---|".repeat(sides.len())
    )?;
    for case in results.cases() {
        let Some(our) = ours.get(case) else { continue };
        let seconds = our.seconds();
        let flops = match our.flops {
            0.0 => String::new(),
            flops => format!("{:.1}", flops / seconds / 1e12),
        };
        let floor = match peaks.floor(our) {
            floor if floor > 0.0 && floor.is_finite() => {
                format!("{:.0} %", 100.0 * floor / seconds)
            }
            _ => String::new(),
        };
        let peak = our.peak_bytes.map(|bytes| format!("{:.2} GB", bytes / 1e9));
        let peak = peak.unwrap_or_default();
        let (repeats, ms) = (our.repeats, 1e3 * seconds);
        write!(
            out,
            "| {case} | {repeats} | {ms:.3} | {flops} | {floor} | {peak} |"
        )?;
        for their in &theirs {
            match their.get(case) {
                Some(their) => {
                    let peak = their
                        .peak_bytes
                        .map(|bytes| format!(", {:.2} GB", bytes / 1e9));
                    let (peak, their) = (peak.unwrap_or_default(), their.seconds());
                    write!(out, " {:.3}{peak} | {:.2} |", 1e3 * their, their / seconds)?;
                }
                None => write!(out, " | |")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Everything that went wrong or was left out, with its text.
fn failures(results: &Results, out: &mut String) -> fmt::Result {
    writeln!(out, "\n## Left out\n")?;
    let mut none = true;
    for row in &results.rows {
        if let Some(reason) = row["skipped"].as_str() {
            let case = row["case"].as_str().unwrap_or("all cases");
            writeln!(out, "- {}, {case}: {reason}", row_side(row))?;
            none = false;
        }
    }
    if none {
        writeln!(out, "Nothing.")?;
    }
    writeln!(out, "\n## Failures\n")?;
    let mut none = true;
    for row in &results.rows {
        if let Some(error) = row["error"].as_str() {
            let case = row["case"].as_str().unwrap_or("all cases");
            writeln!(out, "- {}, {case}: {error}", row_side(row))?;
            none = false;
        }
    }
    for test in results.tests.iter().filter(|test| !test.passed()) {
        writeln!(out, "\n### {}: {}\n\n```text", test.name, test.outcome)?;
        writeln!(out, "{}\n```", test.output.trim_end().replace("```", "'''"))?;
        none = false;
    }
    if none {
        writeln!(out, "None.")?;
    }
    Ok(())
}
