//! The binary `xdit-cli`: the command line is read, one command runs, its failure is one line and an exit code.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod output;
mod report;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;
use xdit_models::quote;

use args::argv::{self, Parsed};
use args::cli::Command;
use commands::{generate, info, plan, replay};
use report::console;
use report::failure::Failure;
use run::environment::Environment;
use run::last_resort;
use run::session::Session;

/// More than this thread needs.
const MAIN_STACK: usize = 512 << 10;
/// About what a thread maps for handling the overflow of its stack.
const STACK: usize = 16 << 10;
/// Exit code of a fault of this program, as Rust gives it to a panic.
const FAULT: u8 = 101;

fn main() -> ExitCode {
    let started = Instant::now();
    grow_stack();
    // A hint: the run is the same without it, only slower.
    xdit_kernels::keep_freed_memory();
    let words: Vec<OsString> = std::env::args_os().collect();
    // Words that cannot be parsed give no flags; who asked for JSON is answered in JSON all the same.
    let json = words.iter().any(|word| word == "--json");
    last_resort::arm(json);
    faults_are_one_line();
    let code = match argv::parse(words) {
        Ok(Parsed::Text(text)) => tell(console::print(&text).map(|()| 0), false),
        Ok(Parsed::Run(cli)) => run_command(&cli.command, started),
        Err(failure) => tell(Err(failure), json),
    };
    ExitCode::from(code)
}

/// Makes the system map now what this thread will need of its stack: under a limit of address space the process dies of SIGSEGV
/// where the stack cannot grow later.
#[inline(never)]
fn grow_stack() {
    std::hint::black_box([0_u8; MAIN_STACK]);
}

fn run_command(command: &Command, started: Instant) -> u8 {
    let json = command.report().json;
    let session = match Session::open(started, command, Environment::read()) {
        Ok(session) => session,
        Err(failure) => return tell(Err(failure), json),
    };
    // A panic is a fault of this program; caught here, so that the trace is closed and the exit code is ours.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match command {
        Command::Generate(args) => generate::run(args, &session),
        Command::Plan(args) => plan::run(args, &session),
        Command::Replay(args) => replay::run(args, &session),
        Command::Info(args) => info::run(args, &session),
    }));
    let closed = session.close();
    match outcome {
        Ok(result) => tell(result.and_then(|code| closed.map(|()| code)), json),
        Err(_) => FAULT,
    }
}

/// Tells of a failure, in one line and, with `--json`, as one object. Returns the exit code.
fn tell(result: Result<u8, Failure>, json: bool) -> u8 {
    match result {
        Ok(code) => code,
        Err(Failure::Stdout(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 1,
        Err(failure) => {
            last_resort::told();
            let code = failure.exit_code();
            let message = quote::line(&failure.to_string());
            console::eprint_line(&format!("error: {message}"));
            if json {
                let object = json!({"error": {"message": message, "exit_code": code}});
                console::print_json(&object).ok();
            }
            code
        }
    }
}

/// What a panic prints: one line instead of a backtrace.
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
        // So a thread of Rust's library says that no memory was mapped for it.
        if message.starts_with("failed to allocate an alternative stack") {
            last_resort::end(STACK);
        }
        // A rank's panic ends the run with an error that names the rank and repeats the message; one in the library that
        // reads tokenizers ends it with an error that names the file.
        if std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("rank ") || name == "tokenizer")
        {
            return;
        }
        console::eprint_line(&format!(
            "error: fault in xdit-cli, please report it: {message}{place}"
        ));
    }));
}
