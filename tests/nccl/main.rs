//! Tests of NCCL's transport on virtual GPUs, which the double of NCCL connects: under each schedule, ranks pass the conformance suite and
//! more, and nothing is reported.

use std::process::{Command, Output};

use vgpu::{Gpu, Schedule};

/// Runs ranks under a schedule.
fn ranks(count: usize, schedule: Schedule, parts: &[&str], variables: &[(&str, &str)]) -> Output {
    let gpu = Gpu {
        devices: count,
        native: true,
        ..Gpu::new(schedule)
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_nccl-ranks"));
    command.arg(count.to_string()).args(parts);
    let command = gpu.attach(&mut command).expect("the doubles are built");
    let command = command.envs(variables.iter().copied());
    command.output().expect("the program starts")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

/// Lazy, eager, and two random ones.
fn schedules() -> Vec<Schedule> {
    Schedule::several(2)
}

#[track_caller]
fn pass(count: usize, parts: &[&str], variables: &[(&str, &str)]) {
    for schedule in schedules() {
        let output = ranks(count, schedule, parts, variables);
        let said = said(&output);
        assert!(
            output.status.success() && said.is_empty(),
            "{count} ranks under {schedule:?}: {} {said}",
            output.status
        );
    }
}

#[test]
fn conformance_of_one_and_two_ranks() {
    pass(1, &["conformance", "own"], &[]);
    pass(2, &["conformance", "own"], &[]);
}
