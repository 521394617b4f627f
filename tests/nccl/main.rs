//! Tests of NCCL's transport on virtual GPUs, which the double of NCCL connects: under each schedule, ranks pass the conformance suite and
//! more, and nothing is reported.

use std::process::{Command, Output};

use vgpu::{Gpu, REPORTED, Schedule};

/// Runs a program on so many GPUs under a schedule.
fn run(
    program: &str,
    arguments: &[&str],
    count: usize,
    schedule: Schedule,
    variables: &[(&str, &str)],
) -> Output {
    let gpu = Gpu {
        devices: count,
        native: true,
        ..Gpu::new(schedule)
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let command = gpu.attach(&mut command).expect("the doubles are built");
    let command = command.envs(variables.iter().copied());
    command.output().expect("the program starts")
}

fn ranks(count: usize, schedule: Schedule, parts: &[&str], variables: &[(&str, &str)]) -> Output {
    let number = count.to_string();
    let arguments = [&[number.as_str()], parts].concat();
    let program = env!("CARGO_BIN_EXE_nccl-ranks");
    run(program, &arguments, count, schedule, variables)
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

/// Ranks learn of a failure. The double may report what the ranks did wrong on purpose.
#[track_caller]
fn learn(count: usize, part: &str, report: &str, variables: &[(&str, &str)]) {
    for schedule in schedules() {
        let output = ranks(count, schedule, &[part], variables);
        let said = said(&output);
        let is_reported = output.status.code() == Some(REPORTED) && !report.is_empty();
        let other = said
            .lines()
            .find(|line| report.is_empty() || !line.contains(report));
        assert!(
            (output.status.success() || is_reported) && other.is_none(),
            "{part} of {count} ranks under {schedule:?}: {} {said}",
            output.status
        );
    }
}

#[test]
fn conformance_of_one_and_two_ranks() {
    pass(1, &["conformance", "own"], &[]);
    pass(2, &["conformance", "own"], &[]);
}

#[test]
fn conformance_of_four_and_five_ranks() {
    pass(4, &["conformance", "own"], &[]);
    pass(5, &["conformance", "own"], &[]);
}

/// NCCL before 2.18.1.
#[test]
fn groups_without_a_split_of_the_library() {
    pass(4, &["conformance"], &[("VGPU_NCCL_VERSION", "21403")]);
}

#[test]
fn ranks_that_disagree_get_the_error_of_threads() {
    learn(2, "disagree", "which receives", &[]);
}

#[test]
fn ranks_that_wait_for_each_other_at_first_are_told_at_once() {
    learn(3, "first-circle", "", &[]);
}

#[test]
fn gpus_that_wait_for_each_other_end_at_the_deadline() {
    learn(3, "circle", "", &[]);
}

#[test]
fn a_rank_that_fails_ends_what_the_gpus_of_others_wait_for() {
    learn(3, "failed", "", &[]);
}

#[test]
fn a_rank_that_fails_ends_a_crowd_of_batches() {
    learn(2, "crowd", "", &[]);
}

#[test]
fn a_failure_of_nccl_itself_reaches_all_ranks() {
    learn(2, "broken", "", &[("VGPU_NCCL_BREAK", "1:300")]);
}

#[test]
fn what_a_rank_has_sent_arrives_after_it_has_left() {
    pass(3, &["leaves"], &[]);
}

#[test]
fn two_ranks_on_one_gpu_are_refused_by_all() {
    let output = ranks(2, Schedule::Lazy, &["shared-gpu"], &[]);
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    for rank in 0..2 {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("rank {rank}: ")));
        let line = line.unwrap_or_default();
        assert!(line.contains("Duplicate GPU detected"), "{said}");
    }
}

#[test]
fn a_library_that_is_too_old_or_missing_is_an_error() {
    let old = [("VGPU_NCCL_VERSION", "21301")];
    let output = ranks(1, Schedule::Lazy, &["own"], &old);
    let text = "the library is NCCL 2.13.1; install 2.14 or newer";
    assert!(said(&output).contains(text), "{}", said(&output));
    let missing = [("LD_LIBRARY_PATH", "")];
    let output = ranks(1, Schedule::Lazy, &["library"], &missing);
    let text = "NCCL is not installed: libnccl.so.2 does not open";
    assert!(said(&output).contains(text), "{}", said(&output));
}
