//! The Rust side of `compare.py`: makes an operation on random data when asked, runs it when asked, answers in
//! nanoseconds. One JSON object a line each way, so that the driver can take turns with PyTorch.
//!
//! ```text
//! {"op": "linear", "dtype": "f32", "m": 256, "k": 3072, "n": 3072}   →  {"id": 0}
//! {"op": "run", "id": 0, "reps": 4}                                  →  {"ns": 12345678}
//! {"op": "picture", "folder": "…", "dtype": "bf16", "call": {…}}     →  {"values": [0.25, …]}
//! {"op": "drop"}                                                     →  {}
//! ```

mod cases;
mod pipelines;
mod ranks;

use serde_json::{Value, json};
use std::{
    io::{BufRead, Write},
    time::Instant,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An operation with its operands, ready to run.
type Case = Box<dyn Fn() -> Result<(), Failure> + Send>;

fn answer(request: &Value, cases: &mut Vec<Case>) -> Result<Value, Failure> {
    match request["op"].as_str() {
        Some("run") => {
            let id = request["id"].as_u64().ok_or("run needs an id")? as usize;
            let case = cases.get(id).ok_or("no such id")?;
            let reps = request["reps"].as_u64().unwrap_or(1);
            let start = Instant::now();
            for _ in 0..reps {
                case()?;
            }
            Ok(json!({"ns": start.elapsed().as_nanos() as u64}))
        }
        Some("picture") => Ok(json!({"values": pipelines::picture(request)?})),
        Some("drop") => {
            cases.clear();
            Ok(json!({}))
        }
        _ => {
            cases.push(cases::make(request)?);
            Ok(json!({"id": cases.len() - 1}))
        }
    }
}

fn main() -> Result<(), Failure> {
    // As xdit-cli does.
    xdit_kernels::keep_freed_memory();
    let threads = std::env::args().nth(1).map_or(Ok(2), |n| n.parse())?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    pool.install(|| {
        let mut cases = Vec::new();
        for line in std::io::stdin().lock().lines() {
            let reply = serde_json::from_str(&line?)
                .map_err(Failure::from)
                .and_then(|request: Value| answer(&request, &mut cases))
                .unwrap_or_else(|e| json!({"error": e.to_string()}));
            let mut out = std::io::stdout().lock();
            writeln!(out, "{reply}")?;
            out.flush()?;
        }
        Ok(())
    })
}
