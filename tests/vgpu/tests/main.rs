//! The doubles are tested by programs: good ones raise no alarm, and each seeded bug is found.

use std::process::{Command, Output};

use vgpu::{Gpu, REPORTED, Schedule};

const PROGRAMS: &str = env!("CARGO_BIN_EXE_vgpu-programs");

/// A program, or a mutant of it.
struct Case {
    program: String,
    capability: u32,
    bug: String,
    /// What the report says.
    words: String,
}

fn cases() -> Vec<Case> {
    let list = Command::new(PROGRAMS)
        .output()
        .expect("the list of programs");
    let list = String::from_utf8(list.stdout).expect("the list is text");
    list.lines()
        .map(|line| {
            let parts: Vec<&str> = line.split('|').collect();
            let [program, capability, bug, words] = parts[..] else {
                panic!("a line of the list: {line}")
            };
            Case {
                program: program.to_owned(),
                capability: capability.parse().expect("a compute capability"),
                bug: bug.to_owned(),
                words: words.to_owned(),
            }
        })
        .collect()
}

impl Case {
    fn run(&self, schedule: Schedule) -> Output {
        let gpu = Gpu {
            capability: self.capability,
            ..Gpu::new(schedule)
        };
        let arguments = [self.program.as_str(), &self.bug];
        let arguments = &arguments[..if self.bug.is_empty() { 1 } else { 2 }];
        let mut command = Command::new(PROGRAMS);
        gpu.attach(command.env_clear())
            .expect("the doubles are built");
        // `safe contexts` counts on this size.
        command.env("VGPU_MEM_MB", "64").args(arguments);
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
                "{}, {}:\n{}",
                case.program,
                case.bug,
                said.join("\n")
            ));
        }
    }
    assert!(mutants >= 40, "{mutants} bugs");
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n\n"));
}
