//! The lines of the benchmarks and the results of the tests, as the run has left them in its folder.

use crate::{Failure, measure::median};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// What a run has left in its folder.
#[derive(Debug)]
pub(crate) struct Results {
    /// The line of `gpu-bench probe`.
    pub(crate) device: Value,
    /// Pairs of a name and what the script has found: the date, the driver, versions.
    pub(crate) facts: Vec<[String; 2]>,
    pub(crate) tests: Vec<TestResult>,
    /// Lines of both benchmarks.
    pub(crate) rows: Vec<Value>,
}

/// One test, which ran in a process of its own.
#[derive(Debug)]
pub(crate) struct TestResult {
    pub(crate) name: String,
    /// `passed`, or what happened instead.
    pub(crate) outcome: String,
    pub(crate) seconds: String,
    /// What it has printed, if it did not pass.
    pub(crate) output: String,
}

impl TestResult {
    pub(crate) fn passed(&self) -> bool {
        self.outcome == "passed"
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "kind": "test",
            "name": self.name,
            "outcome": self.outcome,
            "seconds": self.seconds.parse::<f64>().ok(),
            "output": self.output,
        })
    }
}

/// The samples of a case on one side, of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    medians: Vec<f64>,
    pub(crate) repeats: u64,
    pub(crate) bytes: f64,
    pub(crate) flops: f64,
    pub(crate) peak_bytes: Option<f64>,
}

impl Measured {
    /// The median of the rounds' medians.
    pub(crate) fn seconds(&self) -> f64 {
        let mut sorted = self.medians.clone();
        sorted.sort_by(f64::total_cmp);
        median(&sorted)
    }
}

impl Results {
    /// Reads `device.json`, `facts.tsv`, `tests.tsv`, `logs/` and `bench.jsonl`.
    ///
    /// # Errors
    /// If one of them cannot be read. Files of parts that did not run are empty or missing.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let device = fs::read_to_string(folder.join("device.json"))?;
        let lines = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let tests = lines("tests.tsv");
        let tests = tests.lines().filter_map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            let (name, outcome, seconds) = (fields.next()?, fields.next()?, fields.next()?);
            let output = match &*outcome {
                "passed" => String::new(),
                _ => lines(&format!("logs/{}.txt", name.replace("::", "."))),
            };
            Some(TestResult {
                name,
                outcome,
                seconds,
                output,
            })
        });
        let facts = lines("facts.tsv");
        let facts = facts.lines().filter_map(|line| {
            let (name, value) = line.split_once('\t')?;
            Some([name.to_owned(), value.to_owned()])
        });
        let rows = lines("bench.jsonl");
        // Libraries may print lines of their own.
        let rows = rows
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|row| row["kind"].is_string());
        Ok(Self {
            device: serde_json::from_str(&device)?,
            facts: facts.collect(),
            tests: tests.collect(),
            rows: rows.collect(),
        })
    }

    /// The measurements of one side (`xdit`, or a variant of torch), by case.
    pub(crate) fn measured(&self, side: &str) -> BTreeMap<&str, Measured> {
        let mut all: BTreeMap<&str, Measured> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row_side(row) == side) {
            let (Some(case), Some(median)) = (row["case"].as_str(), row["median_s"].as_f64())
            else {
                continue;
            };
            let measured = all.entry(case).or_default();
            measured.medians.push(median);
            measured.repeats += row["repeats"].as_u64().unwrap_or(0);
            measured.bytes = row["bytes"].as_f64().unwrap_or(0.0);
            measured.flops = row["flops"].as_f64().unwrap_or(0.0);
            measured.peak_bytes = row["peak_bytes"].as_f64().or(measured.peak_bytes);
        }
        all
    }

    /// The sides of torch in the order in which they appear.
    pub(crate) fn torch_sides(&self) -> Vec<String> {
        let mut sides = Vec::new();
        for row in self.rows.iter().filter(|row| row["side"] == "torch") {
            let side = row_side(row);
            if row["median_s"].is_number() && !sides.contains(&side) {
                sides.push(side);
            }
        }
        sides
    }

    /// The cases in the order of their lines.
    pub(crate) fn cases(&self) -> Vec<&str> {
        let mut cases = Vec::new();
        for case in self.rows.iter().filter_map(|row| row["case"].as_str()) {
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }
}

/// `xdit`, or torch with its variant.
pub(crate) fn row_side(row: &Value) -> String {
    let side = row["side"].as_str().unwrap_or("?");
    match row["variant"].as_str() {
        Some(variant) => format!("{side} {variant}"),
        None => side.to_owned(),
    }
}
