//! Programs that use GPUs. `vgpu-programs NAME` runs one as it should be, `vgpu-programs NAME BUG` with one bug. Without
//! arguments it lists all, with what the virtual GPU says about the bug.

mod driver;
mod kernels;
mod launches;
mod lifetimes;
mod matmul;
mod nccl;
mod nccl_calls;
mod plain;
mod safe;
mod streams;

use std::process::ExitCode;

/// How a program ends.
type Outcome = Result<(), String>;

/// A program.
struct Program {
    name: &'static str,
    /// The compute capability that it needs.
    capability: u32,
    /// Runs it with a bug, or none if the text is empty.
    run: fn(&str) -> Outcome,
    /// The bugs, each with words of the report; `/` separates alternatives. `wrong result` is what the program says itself
    /// where the driver cannot see that anything is wrong. Words behind a `~` come under some schedules only.
    bugs: &'static [(&'static str, &'static str)],
}

fn programs() -> impl Iterator<Item = &'static Program> {
    let lists = [
        streams::PROGRAMS,
        lifetimes::PROGRAMS,
        launches::PROGRAMS,
        kernels::PROGRAMS,
        matmul::PROGRAMS,
        nccl::PROGRAMS,
        plain::PROGRAMS,
        safe::PROGRAMS,
    ];
    lists.into_iter().flatten()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        for program in programs() {
            let Program {
                name, capability, ..
            } = program;
            println!("{name}|{capability}||");
            for (bug, report) in program.bugs {
                println!("{name}|{capability}|{bug}|{report}");
            }
        }
        return ExitCode::SUCCESS;
    };
    let bug = arguments.get(1).map_or("", String::as_str);
    let Some(program) = programs().find(|program| program.name == name) else {
        eprintln!("there is no program {name}");
        return ExitCode::from(2);
    };
    if !bug.is_empty() && !program.bugs.iter().any(|(known, _)| *known == bug) {
        eprintln!("{name} has no bug {bug}");
        return ExitCode::from(2);
    }
    match (program.run)(bug) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{name}: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Compares what was computed with what it must be.
fn compare<T: PartialEq>(got: &[T], want: &[T]) -> Outcome {
    if got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got == want) {
        Ok(())
    } else {
        Err("wrong result".to_owned())
    }
}
