//! `xdit-cli completions`: a script with which a shell completes commands, flags and values.

use clap_complete::Shell;

use crate::args::argv;
use crate::args::cli::CompletionsArgs;
use crate::report::console;
use crate::report::failure::Failure;

/// Prints the script for the shell.
///
/// # Errors
/// [`Failure::Stdout`] if the reader of standard output has closed it.
pub(crate) fn run(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut command = argv::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        // clap_complete spells the states of a program with a hyphen in its name in two ways
        // (https://github.com/clap-rs/clap/issues/6421), so that no flag of a command would complete.
        script = script.replace("xdit__subcmd__cli", "xdit__cli");
    }
    console::print_as_is(script.as_bytes())?;
    Ok(0)
}
