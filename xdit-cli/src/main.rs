//! The binary `xdit-cli`: parses the command line and runs one command. A failure is one line and an exit code.
#![forbid(unsafe_code)]

mod args;
mod checks;
mod commands;
mod launch;
mod launcher;
mod output;
mod report;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;
use xdit_models::quote;

use args::argv::{self, Parsed};
use args::cli::{Command, RanksOf};
use commands::{completions, devices, doctor, download, generate, info, man, plan, replay};
use launch::ProcessJob;
use report::console;
use report::failure::Failure;
use report::voice;
use run::environment::Environment;
use run::last_resort;
use run::session::Session;

/// More stack than this thread needs.
const MAIN_STACK: usize = 512 << 10;
/// About the size of the mapping with which a thread handles the overflow of its stack.
const STACK: usize = 16 << 10;
/// The exit code of a bug of this program, the same as for a panic in Rust.
const FAULT: u8 = 101;

fn main() -> ExitCode {
    let started = Instant::now();
    grow_stack();
    // Only for speed: the result is the same without it.
    xdit_kernels::keep_freed_memory();
    let words: Vec<OsString> = std::env::args_os().collect();
    // If the words cannot be parsed there are no flags. A user who asked for JSON still gets JSON.
    let json = words.iter().any(|word| word == "--json");
    last_resort::arm(json);
    faults_are_one_line();
    let environment = Environment::read();
    launch::be_silent_at_first(&environment);
    let code = match argv::parse(words) {
        Ok(Parsed::Text(text)) => tell(console::print(&text).map(|()| 0), false),
        Ok(Parsed::Run(cli)) => run_command(&cli.command, environment, started),
        Err(failure) => tell_without_job(failure, json),
    };
    ExitCode::from(code)
}

/// Maps the stack that this thread will need now. Under a limit of address space, the process would die of SIGSEGV if the stack
/// cannot grow later.
#[inline(never)]
fn grow_stack() {
    std::hint::black_box([0_u8; MAIN_STACK]);
}

fn run_command(command: &Command, environment: Environment, started: Instant) -> u8 {
    if command.ranks() == RanksOf::RankZero && voice::is_silent() {
        return 0;
    }
    let report = command.report();
    let json = report.json;
    let (job, contradiction) = match ProcessJob::find(command, &environment) {
        Ok(job) => (job, None),
        // It says so among the rest.
        Err(failure) if matches!(command, Command::Doctor(_)) => {
            (ProcessJob::default(), Some(failure))
        }
        Err(failure) => return tell_without_job(failure, json),
    };
    let session = match Session::open(started, command, job.report(report), environment) {
        Ok(session) => session,
        Err(failure) => return end(job, Err(failure), json),
    };
    // A panic is a bug of this program. It is caught here, so that the trace is closed and the exit code is documented.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match command {
        Command::Generate(args) => generate::run(args, &session, &job),
        Command::Plan(args) => plan::run(args, &session),
        Command::Replay(args) => replay::run(args, &session, &job),
        Command::Info(args) => info::run(args, &session),
        Command::Download(args) => download::run(args, &session),
        Command::Devices(args) => devices::run(args, &session),
        Command::Doctor(args) => {
            let job = contradiction.as_ref().map_or(Ok(&job), Err);
            doctor::run(args, &session, job)
        }
        Command::Launch(args) => commands::launch::run(args, &session),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args, &session),
    }));
    let closed = session.close();
    match outcome {
        Ok(result) => end(job, result.and_then(|code| closed.map(|()| code)), json),
        Err(_) => {
            let fault = voice::fault().unwrap_or_default();
            job.end(Some(&format!(
                "fault in xdit-cli, please report it: {fault}"
            )));
            FAULT
        }
    }
}

/// Reports a failure that comes before this process knows its job. Returns the exit code.
fn tell_without_job(failure: Failure, json: bool) -> u8 {
    let code = tell(Err(failure), json);
    launch::be_courteous();
    code
}

/// Reports a failure and leaves the other processes of the job. Returns the exit code.
fn end(job: ProcessJob, result: Result<u8, Failure>, json: bool) -> u8 {
    let failed = result.as_ref().err().map(Failure::to_string);
    // First this: the others end when this process has left them.
    let code = tell(result, json);
    job.end(failed.as_deref());
    code
}

/// Reports a failure in one line and, with `--json`, as one object. Returns the exit code.
fn tell(result: Result<u8, Failure>, json: bool) -> u8 {
    match result {
        Ok(code) => code,
        Err(Failure::Stdout(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 1,
        Err(failure) => {
            last_resort::is_first_to_tell();
            let code = failure.exit_code();
            let message = quote::line(&failure.to_string());
            console::tell_error(&message, &failure);
            if json {
                let object = json!({"error": {"message": message, "exit_code": code}});
                console::print_json_line(&object).ok();
            }
            code
        }
    }
}

/// Makes a panic print one line instead of a backtrace.
fn faults_are_one_line() {
    std::panic::set_hook(Box::new(|fault| {
        let place = fault
            .location()
            .map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        let payload = fault.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        // A thread of Rust's library panics with this text if no memory can be mapped for it.
        if message.starts_with("failed to allocate an alternative stack") {
            last_resort::end(STACK);
        }
        // The panic of a rank ends the run with an error that names the rank and repeats the message. The panic of the library
        // that reads tokenizers ends the run with an error that names the file.
        if std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("rank ") || name == "tokenizer")
        {
            return;
        }
        voice::keep_fault(format!("{message}{place}"));
        console::eprint_line(&format!(
            "error: fault in xdit-cli, please report it: {message}{place}"
        ));
    }));
}
