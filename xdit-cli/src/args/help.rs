//! The form of help texts: `-h` is one screen with the most used flags, `--help` is whole.

use clap::{Arg, Command};

use crate::report::table::COLUMNS;

/// The flags of `-h`, by their long names. Positional arguments are always there.
const MOST_USED: [&str; 24] = [
    "dtype",
    "guidance-scale",
    "height",
    "help",
    "hosts",
    "json",
    "low-memory",
    "model",
    "negative-prompt",
    "nproc",
    "num-images-per-prompt",
    "num-inference-steps",
    "output",
    "output-dir",
    "pipefusion-parallel-degree",
    "prompt",
    "prompt-file",
    "quiet",
    "seed",
    "show-schedule",
    "threads",
    "ulysses-degree",
    "verbose",
    "width",
];

/// The command line whose help texts have this form.
pub(crate) fn formed(command: Command) -> Command {
    command
        .term_width(COLUMNS)
        .mut_subcommands(|subcommand| subcommand.mut_args(form))
}

/// The first paragraph of an argument's text is its line in `-h`; `--help` shows all paragraphs as one. Defaults end both,
/// written in the text or known to clap.
fn form(argument: Arg) -> Arg {
    let text = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string);
    let short = text(argument.get_help()).unwrap_or_default();
    let long = text(argument.get_long_help()).unwrap_or_else(|| short.clone());
    let long = long.replace("\n\n", " ");
    let takes_values = argument.get_action().takes_values();
    let default = match takes_values {
        true => argument.get_default_values(),
        false => &[],
    };
    let default = default.iter().map(|value| value.to_string_lossy());
    let default: String = default
        .map(|value| format!(" [default: {value}]"))
        .collect();
    let is_hidden = argument
        .get_long()
        .is_some_and(|long| !MOST_USED.contains(&long));
    argument
        .help(format!("{short}{default}"))
        .long_help(format!("{}{default}", long.trim_end_matches('.')))
        .hide_default_value(takes_values)
        .hide_short_help(is_hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::argv;

    #[test]
    fn every_flag_has_a_heading_and_a_text_and_is_shown() {
        let program = argv::command();
        for command in program
            .get_subcommands()
            .filter(|it| it.is_disable_help_flag_set())
        {
            for flag in command.get_arguments().filter(|it| !it.is_positional()) {
                let name = format!("{} --{}", command.get_name(), flag.get_id());
                assert!(flag.get_help_heading().is_some(), "{name}");
                assert!(
                    !flag.is_hide_set() && !flag.is_hide_long_help_set(),
                    "{name}"
                );
                let text = flag.get_long_help().map(ToString::to_string);
                let text = text.unwrap_or_default();
                assert!(
                    text.starts_with(|c: char| c.is_alphabetic() || c == '-'),
                    "{name}: {text}"
                );
                assert!(
                    !text.ends_with('.') && !text.contains('\n'),
                    "{name}: {text}"
                );
            }
        }
    }

    #[test]
    fn the_most_used_flags_exist() {
        let program = argv::command();
        let commands = || program.get_subcommands().flat_map(Command::get_arguments);
        for name in MOST_USED {
            assert!(commands().any(|it| it.get_long() == Some(name)), "{name}");
        }
    }
}
