//! The text of `xdit-cli plan`.

use xdit_comm::Axis;
use xdit_models::quote::counted;
use xdit_models::{Blocks, Placement, RunPlan, StepTraffic, Traffic};

use crate::report::plan_json::{Shown, all_steps, totals, whole_steps};
use crate::report::table::{COLUMNS, aligned, cells, headed};
use crate::run::memory::{self, shown as bytes};

/// Returns the plan as text: the images, the steps, and tables of stages, ranks and links.
pub(crate) fn text(shown: &Shown<'_>) -> String {
    let plan = shown.plan;
    let call = format!(
        "{}×{}, {}, {}, {}; {} text and {} image tokens",
        plan.width,
        plan.height,
        counted(plan.images, "image"),
        counted(plan.schedule.steps, "step"),
        shown.dtype,
        plan.text_tokens,
        plan.image_tokens,
    );
    let mut text = headed(shown.model, &call);
    text += &format!("{}\n", plan.degrees.in_words());
    text += &format!("{}\n", patches(plan));
    text += &format!("{}\n\n", steps(shown));
    text += &stages(plan);
    text.push('\n');
    text += &ranks(plan);
    if plan.stages.len() > 1 {
        text.push('\n');
        text += &links(plan);
    }
    text.push('\n');
    text += &memory::lines(plan);
    text += &memory::without_t5(plan.computing_memory());
    if let Some(schedule) = &shown.schedule {
        text += match plan.placement {
            Placement::Linear => "\nSTEP.PATCH by stage and time, .* a whole step\n",
            Placement::Folded => {
                "\nSTEP.PATCH down, STEP'PATCH up, by stage and time; * a whole step\n"
            }
        };
        text += &in_pieces(schedule);
    }
    text
}

/// Cuts the rows of a schedule into pieces that fit the terminal, one below the other.
fn in_pieces(schedule: &str) -> String {
    let rows: Vec<(&str, Vec<&str>)> = schedule
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(stage, cells)| (stage, cells.split_whitespace().collect()))
        .collect();
    let width = |text: &&str| text.chars().count();
    let cells = rows.iter().flat_map(|(_, cells)| cells);
    let cell = cells.map(width).max().unwrap_or(0);
    let name = rows
        .iter()
        .map(|(stage, _)| width(stage))
        .max()
        .unwrap_or(0);
    let columns = rows.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
    let each = (COLUMNS.saturating_sub(name + 1) / (cell + 1)).max(1);
    let mut text = String::new();
    for start in (0..columns).step_by(each) {
        if start > 0 {
            text.push('\n');
        }
        for (stage, cells) in &rows {
            let piece = cells.iter().skip(start).take(each);
            let piece: String = piece.map(|it| format!(" {it:cell$}")).collect();
            text += &format!("{stage}|{piece}");
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text
}

/// The axes with several ranks, outermost first.
fn axes(plan: &RunPlan) -> impl Iterator<Item = Axis> {
    let degrees = plan.degrees;
    let axes = degrees.order.axes().into_iter();
    axes.filter(move |axis| degrees.of(*axis) > 1)
}

/// `3 patches: 1 of 6 rows (96 tokens), 2 of 5 rows (80 tokens)`.
fn patches(plan: &RunPlan) -> String {
    let count = plan.patches.count();
    let mut sizes: Vec<(usize, usize, usize)> = Vec::new();
    for patch in 0..count {
        let (rows, tokens) = (plan.patches.rows(patch).len, plan.patches.tokens(patch).len);
        match sizes.last_mut() {
            Some((last, _, same)) if *last == rows => *same += 1,
            _ => sizes.push((rows, tokens, 1)),
        }
    }
    let sizes: Vec<String> = sizes
        .iter()
        .map(|(rows, tokens, same)| {
            format!("{same} of {} ({tokens} tokens)", counted(*rows, "row"))
        })
        .collect();
    match count {
        1 => format!("1 patch: {}", counted(plan.patches.rows(0).len, "row")),
        _ => format!("{count} patches: {}", sizes.join(", ")),
    }
}

fn steps(shown: &Shown<'_>) -> String {
    let (plan, whole) = (shown.plan, whole_steps(shown.plan));
    let steps = plan.schedule.steps;
    if !plan.schedule.is_lossy() {
        return format!("{} whole: exact", counted(steps, "step"));
    }
    let mut text = format!(
        "{} whole, then {} patch by patch: lossy, keys and values up to a step old",
        counted(whole, "step"),
        steps - whole
    );
    if let Some(drift) = shown.max_drift {
        text += &format!("\na step runs whole again when drift is above {drift}");
    }
    text
}

fn stages(plan: &RunPlan) -> String {
    let mut rows = vec![cells([
        "stage",
        "blocks",
        "of which",
        "FLOPs",
        "parameters",
    ])];
    for (number, stage) in plan.stages.iter().enumerate() {
        let kinds: Vec<String> = stage
            .kinds
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        rows.push(vec![
            number.to_string(),
            blocks(&stage.blocks),
            kinds.join(", "),
            format!("{:.1} %", 100. * stage.flops_share),
            bytes(stage.parameter_bytes),
        ]);
    }
    aligned(&rows, &[0, 1, 3, 4])
}

/// `0–4, 35–39`.
fn blocks(blocks: &Blocks) -> String {
    let ranges = blocks.ranges().iter();
    let ranges = ranges.map(|range| match range.len() {
        1 => range.start.to_string(),
        _ => format!("{}–{}", range.start, range.end.saturating_sub(1)),
    });
    ranges.collect::<Vec<_>>().join(", ")
}

fn ranks(plan: &RunPlan) -> String {
    let mut head = vec!["rank".to_owned()];
    let spread = plan.ranks.iter().any(|rank| rank.device.is_some());
    head.extend(axes(plan).map(|axis| axis.to_string()));
    head.extend(spread.then(|| "device".to_owned()));
    head.extend(cells(["parameters", "keys and values"]));
    let columns: Vec<usize> = (0..head.len()).collect();
    let mut rows = vec![head];
    for rank in &plan.ranks {
        let mut row = vec![rank.rank.to_string()];
        row.extend(axes(plan).map(|axis| plan.degrees.coord(rank.rank, axis).to_string()));
        row.extend(rank.device.as_ref().map(ToString::to_string));
        row.extend([bytes(rank.parameter_bytes), bytes(rank.kv_bytes)]);
        rows.push(row);
    }
    if plan.ranks.len() > 1 {
        let mut row = vec!["all".to_owned()];
        row.extend(axes(plan).map(|_| String::new()));
        row.extend(spread.then(String::new));
        row.extend(totals(plan).map(bytes));
        rows.push(row);
    }
    aligned(&rows, &columns)
}

fn links(plan: &RunPlan) -> String {
    let replica = match plan.degrees.data {
        1 => "between stages",
        _ => "in a replica",
    };
    let sent = |traffic: &Traffic| {
        [
            counted(traffic.messages, "message"),
            bytes(traffic.bytes as u64),
        ]
    };
    let count = plan.stages.len() - 1;
    let (whole_step, patched_step) = plan.step_traffic();
    let skips = whole_step.is_some_and(|step| step.skips.messages > 0);
    type Part = fn(&StepTraffic) -> &Traffic;
    let mut parts: Vec<(String, Part)> =
        vec![(format!("stage to stage ({count}×)"), |step| &step.forward)];
    match plan.placement {
        Placement::Linear => parts.push(("last to first".to_owned(), |step| &step.back)),
        Placement::Folded => parts.push((format!("and up again ({count}×)"), |step| &step.upward)),
    }
    if skips {
        parts.push(("skips".to_owned(), |step| &step.skips));
    }
    let names = parts.iter().map(|(name, _)| name.as_str());
    let names = std::iter::once(replica).chain(names);
    let mut rows: Vec<Vec<String>> = names.map(|name| vec![name.to_owned()]).collect();
    for (name, step) in [("whole step", whole_step), ("patched step", patched_step)] {
        if let Some(step) = step {
            rows[0].extend([name.to_owned(), String::new()]);
            for (row, (_, part)) in rows[1..].iter_mut().zip(&parts) {
                row.extend(sent(part(&step)));
            }
        }
    }
    let all = sent(&all_steps(plan)).join(", ");
    aligned(&rows, &[]) + &format!("total of {}: {all}\n", counted(plan.schedule.steps, "step"))
}
