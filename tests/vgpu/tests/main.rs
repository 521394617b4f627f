//! The doubles are tested by programs: good ones raise no alarm, and each seeded bug is found.

use std::process::{Command, Output};

use vgpu::{Gpu, REPORTED, Schedule};

const PROGRAMS: &str = env!("CARGO_BIN_EXE_vgpu-programs");

/// The program whose kernel has a native version: it runs both ways.
const PLAIN: &str = "plain kernel";

/// A program, or a mutant of it.
struct Case {
    program: String,
    capability: u32,
    bug: String,
    /// What the report says.
    words: String,
    /// Whether plain kernels run natively.
    native: bool,
}

fn cases() -> Vec<Case> {
    let list = Command::new(PROGRAMS)
        .output()
        .expect("the list of programs");
    let list = String::from_utf8(list.stdout).expect("the list is text");
    let each = |line: &str| {
        let parts: Vec<&str> = line.split('|').collect();
        let [program, capability, bug, words] = parts[..] else {
            panic!("a line of the list: {line}")
        };
        let case = |native| Case {
            program: program.to_owned(),
            capability: capability.parse().expect("a compute capability"),
            bug: bug.to_owned(),
            words: words.to_owned(),
            native,
        };
        let ways: &[bool] = match program {
            PLAIN => &[false, true],
            _ => &[false],
        };
        ways.iter().map(|&native| case(native)).collect::<Vec<_>>()
    };
    list.lines().flat_map(each).collect()
}

impl Case {
    fn run(&self, schedule: Schedule) -> Output {
        self.run_with(schedule, &[])
    }

    fn run_with(&self, schedule: Schedule, variables: &[(&str, &str)]) -> Output {
        let gpu = Gpu {
            capability: self.capability,
            native: self.native,
            ..Gpu::new(schedule)
        };
        let arguments = [self.program.as_str(), &self.bug];
        let arguments = &arguments[..if self.bug.is_empty() { 1 } else { 2 }];
        let mut command = Command::new(PROGRAMS);
        gpu.attach(command.env_clear())
            .expect("the doubles are built");
        // `safe contexts` counts on this size.
        command.env("VGPU_MEM_MB", "64").args(arguments);
        command.envs(variables.iter().copied());
        command.output().expect("the program starts")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first report; others follow from it.
fn first_line(output: &Output) -> String {
    let said = said(output);
    said.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn good_programs_raise_no_alarm() {
    for case in cases().iter().filter(|case| case.bug.is_empty()) {
        for schedule in Schedule::several(20) {
            let output = case.run(schedule);
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{} under {schedule:?}: {}",
                case.program,
                said(&output)
            );
        }
    }
}

#[test]
fn plain_kernels_run_natively_where_that_is_asked_for() {
    let plain = |case: &Case| case.program == PLAIN && case.bug.is_empty();
    let mut ways = Vec::new();
    for case in cases().iter().filter(|case| plain(case)) {
        let output = case.run_with(Schedule::Lazy, &[("VGPU_STATS", "1")]);
        // The interpreter counts instructions.
        let native = said(&output).contains(" 0 instructions: kernel copy_4");
        assert_eq!(native, case.native, "{}", said(&output));
        ways.push(native);
    }
    assert_eq!(ways, [false, true]);
}

#[test]
fn every_seeded_bug_is_found() {
    let mut mutants = 0;
    let mut missed = Vec::new();
    for case in cases().iter().filter(|case| !case.bug.is_empty()) {
        mutants += 1;
        let outputs = Schedule::several(1).into_iter().map(|s| (s, case.run(s)));
        let outputs: Vec<(Schedule, Output)> = outputs.collect();
        let sometimes = case.words.strip_prefix('~');
        let words = sometimes.unwrap_or(&case.words);
        let reported = |(_, output): &(Schedule, Output)| {
            let code = output.status.code();
            let text = said(output);
            let found = words.split('/').any(|words| text.contains(words));
            found && (code == Some(REPORTED) || words == "wrong result" && code == Some(1))
        };
        let enough = match sometimes {
            Some(_) => outputs.iter().any(reported),
            None => outputs.iter().all(reported),
        };
        if !enough {
            let said: Vec<String> = outputs
                .iter()
                .map(|(schedule, output)| {
                    format!("{schedule:?} {}: {}", output.status, first_line(output))
                })
                .collect();
            missed.push(format!(
                "{}, {}, native {}:\n{}",
                case.program,
                case.bug,
                case.native,
                said.join("\n")
            ));
        }
    }
    assert!(mutants >= 40, "{mutants} bugs");
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n\n"));
}
