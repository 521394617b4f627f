//! `xdit-cli info`: what a pipeline contains.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use xdit_models::info::{ComponentInfo, PipelineInfo, describe};
use xdit_models::quote::counted;
use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request, RunPlan, quote};

use crate::args::cli::InfoArgs;
use crate::commands::picture;
use crate::report::console;
use crate::report::failure::Failure;
use crate::report::table::{COLUMNS, GAP, aligned, headed};
use crate::run::model_choice::{ModelChoice, NeededFiles};
use crate::run::session::Session;
use crate::run::{memory, model};

/// The longest name of a component in the table.
const LONGEST_NAME: usize = 20;
/// The longest list of dtypes in the table.
const LONGEST_DTYPES: usize = 14;
/// What the table shows of the name of a class at least.
const LEAST_CLASS: usize = 10;

/// Prints the components of a pipeline; no weights are loaded.
///
/// # Errors
/// Any [`Failure`].
pub(crate) fn run(args: &InfoArgs, session: &Session) -> Result<u8, Failure> {
    let picture = Path::new(&args.model);
    session.begin_trace()?;
    if picture::is_one(picture) {
        refuse_model_flags(args)?;
        return picture::run(picture, session);
    }
    if picture::has_the_name(picture) && !picture.exists() {
        return Err(Failure::input(picture, "no such file"));
    }
    let wanted = ModelChoice::new(&args.model, &args.files);
    let (source, _) = model::source(wanted, NeededFiles::Headers, session)?;
    let info = describe(&source, args.files.hub.variant.as_deref())?;
    let plan = one_image(&source, args.files.hub.variant.as_deref());
    if session.report.json {
        let mut json = serde_json::to_value(&info).map_err(|e| Failure::usage(e.to_string()))?;
        json["memory"] = json!(plan.map(|plan| memory::estimate(&plan)));
        console::print_json(&json)?;
    } else {
        let memory = plan.map_or_else(String::new, |plan| takes(&plan));
        console::print(&(table(&info) + &memory))?;
    }
    Ok(0)
}

/// Flags about a pipeline would be ignored in silence for a picture.
fn refuse_model_flags(args: &InfoArgs) -> Result<(), Failure> {
    let given = [
        ("--revision", args.files.hub.revision.is_some()),
        ("--variant", args.files.hub.variant.is_some()),
        ("--download-dir", args.files.hub.download_dir.is_some()),
        ("--no-t5", args.files.no_t5),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::usage(format!(
            "{flag} needs a pipeline, and {} is an image",
            quote::name(&args.model)
        ))),
        None => Ok(()),
    }
}

/// Returns the memory of one image of the pipeline's own size, in f32 on one rank, or `None` if the pipeline cannot draw it.
fn one_image(source: &ModelSource, variant: Option<&str>) -> Option<RunPlan> {
    let options = LoadOptions {
        variant: variant.map(str::to_owned),
        // Of whatever machine.
        memory_limit: Some(u64::MAX),
        ..LoadOptions::default()
    };
    Pipeline::plan(source, &options, &Request::new("any"), &Parallel::default()).ok()
}

/// Prints the memory of an image in one line, and the possible saving in another.
fn takes(plan: &RunPlan) -> String {
    let memory = &plan.memory;
    let (all, weights) = (memory.total(), memory.weights());
    let mut text = format!(
        "one image of {}×{} in f32: {}, of which weights {} (see plan)\n",
        plan.width,
        plan.height,
        memory::shown(all),
        memory::shown(weights)
    );
    text += &memory::without_t5(memory);
    text
}

/// Returns the facts as text: a line for the pipeline, a row for each component, a line of sums.
fn table(info: &PipelineInfo) -> String {
    let version = info.diffusers_version.as_ref().map_or(String::new(), |v| {
        format!(", diffusers {}", quote::shorten(v))
    });
    let head = ["component", "class", "parameters", "dtype", "bytes"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(info.components.iter().map(row));
    let class = quote::shorten(&info.class);
    let mut text = headed(&info.name, &format!("{class}{version}"));
    let rows = aligned(&fitted(rows), &[2, 4]);
    let details = info.components.iter().map(details);
    for (row, details) in rows
        .lines()
        .zip(std::iter::once(String::new()).chain(details))
    {
        text += &format!("{row}\n");
        if !details.is_empty() {
            text += &format!("    {}\n", quote::within(&details, COLUMNS - 4));
        }
    }
    let parameters: u64 = info.components.iter().map(|c| c.parameters).sum();
    let bytes: u64 = info.components.iter().map(|c| c.bytes).sum();
    writeln!(
        text,
        "total: {} parameters, {}",
        count(parameters),
        memory::shown(bytes)
    )
    .ok();
    text
}

/// Cuts the names of classes so that the rows fit the terminal: the other columns keep their widths.
fn fitted(mut rows: Vec<[String; 5]>) -> Vec<[String; 5]> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let others: usize = [0, 2, 3, 4].map(width).iter().sum();
    let room = COLUMNS.saturating_sub(others + 4 * GAP).max(LEAST_CLASS);
    for row in &mut rows {
        row[1] = quote::within(&row[1], room);
    }
    rows
}

fn row(component: &ComponentInfo) -> [String; 5] {
    let number = |n: u64, text: String| if n > 0 { text } else { String::new() };
    let dtypes: Vec<String> = component.dtypes.keys().cloned().collect();
    [
        quote::within(&component.name, LONGEST_NAME),
        component.class.clone(),
        number(component.parameters, count(component.parameters)),
        quote::within(&dtypes.join(", "), LONGEST_DTYPES),
        number(component.bytes, memory::shown(component.bytes)),
    ]
}

/// `2 files, 4 × 32 heads, 2 layers`: what a row has no room for.
fn details(component: &ComponentInfo) -> String {
    let heads = match (component.heads, component.head_dim) {
        (Some(heads), Some(dim)) => format!("{heads} × {dim} heads"),
        (Some(heads), None) => counted(heads, "head"),
        _ => String::new(),
    };
    let parts = [
        counted(component.files.len(), "file"),
        heads,
        blocks(&component.blocks),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

fn blocks(blocks: &BTreeMap<String, usize>) -> String {
    let each: Vec<String> = blocks
        .iter()
        .map(|(kind, count)| counted(*count, kind.strip_suffix('s').unwrap_or(kind)))
        .collect();
    each.join(", ")
}

/// A number of parameters in three digits: `11.9 B`.
fn count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{:.1} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.1} B", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(count(999), "999");
        assert_eq!(count(123_456), "123.5 k");
        assert_eq!(count(3_300_000), "3.3 M");
        assert_eq!(count(11_901_408_320), "11.9 B");
    }
}
