//! Parses the words of the command line to [`Cli`], or to an exit code and one line.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use crate::args::cli::Cli;
use crate::args::{help, hints};
use crate::report::failure::Failure;

/// The request of the command line.
pub(crate) enum Parsed {
    /// A run.
    Run(Box<Cli>),
    /// Only a text on standard output: help or version.
    Text(String),
}

/// Parses the command line. `words` begins with the program's name.
///
/// # Errors
/// [`Failure::Usage`] with one line that names the flag.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    let words = dashed(words);
    let parsed = command()
        .try_get_matches_from(&words)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(Parsed::Run(Box::new(cli))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Parsed::Text(error.render().to_string()))
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(Failure::usage(
                "no command given; try `xdit-cli generate --prompt TEXT` or `xdit-cli --help`",
            )),
            ErrorKind::UnknownArgument => Err(Failure::usage(unknown(&error, &words))),
            ErrorKind::InvalidSubcommand => Err(Failure::usage(unknown_command(&error))),
            _ => Err(Failure::usage(plain(&one_line(
                &error.render().to_string(),
            )))),
        },
    }
}

/// The command line of clap, in which a negative number after a flag is its value, right or wrong.
pub(crate) fn command() -> clap::Command {
    help::formed(Cli::command()).mut_subcommands(|subcommand| {
        subcommand.mut_args(|argument| {
            let valued = argument.get_action().takes_values();
            argument.allow_negative_numbers(valued)
        })
    })
}

/// `words` with `_` turned into `-` in the names of known flags, and with what looks like a number after a flag made its
/// value (`--seed=-inf`); values stay as they are.
fn dashed(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let flags = flag_names(&command, |_| true);
    let valued = flag_names(&command, |argument| argument.get_action().takes_values());
    let shorts = short_flags(&command);
    let mut rest_is_values = false;
    // The flag whose value the next word may be, by its long name.
    let mut open: Option<String> = None;
    // Whether the last word is that flag, without a value yet.
    let mut is_bare = false;
    let mut dashed: Vec<OsString> = Vec::new();
    for word in words {
        rest_is_values |= word == "--";
        let Some(text) = word.to_str().filter(|_| !rest_is_values) else {
            dashed.push(word);
            continue;
        };
        if let Some(flag) = &open
            && is_odd_number(text)
        {
            let value = OsString::from(format!("{flag}={text}"));
            match dashed.last_mut().filter(|_| is_bare) {
                Some(last) => *last = value,
                None => dashed.push(value),
            }
            is_bare = false;
            continue;
        }
        let word = dash_flag(text, &flags).map_or(word, OsString::from);
        let text = word.to_str().unwrap_or_default();
        let mut letters = text.strip_prefix('-').unwrap_or_default().chars();
        is_bare = false;
        if let Some(name) = text.strip_prefix("--") {
            open = valued
                .iter()
                .any(|flag| flag == name)
                .then(|| format!("--{name}"));
            is_bare = open.is_some();
        } else if let (Some(letter), rest) = (letters.next(), letters.as_str())
            && let Some(flag) = shorts.iter().find(|flag| flag.letter == letter)
        {
            open = flag.takes_values.then(|| format!("--{}", flag.long));
            is_bare = open.is_some() && rest.is_empty();
        }
        dashed.push(word);
    }
    dashed
}

/// Returns whether `word` is meant as a number although clap treats it as a flag: `-inf`, `-nan`, `-1e999`, `-0x10`.
fn is_odd_number(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('-') else {
        return false;
    };
    let named = ["inf", "infinity", "nan"]
        .iter()
        .any(|name| rest.eq_ignore_ascii_case(name));
    let digits = rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    named || digits && !word.parse().is_ok_and(f64::is_finite)
}

/// `--a_b` or `--a_b=value` as `--a-b`, if there is such a flag.
fn dash_flag(word: &str, flags: &[String]) -> Option<String> {
    let flag = word.strip_prefix("--")?;
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    let dashed = name.replace('_', "-");
    if dashed == name || !flags.contains(&dashed) {
        return None;
    }
    Some(match value {
        Some(value) => format!("--{dashed}={value}"),
        None => format!("--{dashed}"),
    })
}

fn flag_names(command: &clap::Command, which: impl Fn(&clap::Arg) -> bool) -> Vec<String> {
    command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter(|argument| which(argument))
        .filter_map(|argument| argument.get_long())
        .map(str::to_owned)
        .collect()
}

/// A flag with a short name.
struct ShortFlag {
    letter: char,
    long: String,
    takes_values: bool,
}

fn short_flags(command: &clap::Command) -> Vec<ShortFlag> {
    command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| {
            Some(ShortFlag {
                letter: argument.get_short()?,
                long: argument.get_long()?.to_owned(),
                takes_values: argument.get_action().takes_values(),
            })
        })
        .collect()
}

/// What is said of a flag that there is not: what other programs mean by it, if the called command has the flags for that,
/// or clap's own guess. The same of a word that is no value of a flag.
fn unknown(error: &clap::Error, words: &[OsString]) -> String {
    let line = one_line(&error.render().to_string());
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => word,
        _ => return line,
    };
    let command = Cli::command();
    let called = words.iter().find_map(|word| command.find_subcommand(word));
    let has = |flag: &str| {
        called.is_some_and(|called| called.get_arguments().any(|it| it.get_long() == Some(flag)))
    };
    let is_flag = word.starts_with('-');
    let said = match is_flag {
        true => format!("unknown flag '{word}'"),
        false => format!("unexpected word '{word}'"),
    };
    // No word that is not a flag begins with `--`, so that the tip to write `--` before it helps nobody.
    let guess = line.split_once("; tip: ").map(|(_, tip)| tip);
    let guess = guess.filter(|tip| !tip.contains("'-- "));
    let guess = guess.map(|tip| tip.replace("argument", "flag"));
    let hint = match hints::instead_of(word).filter(|hint| hints::flags(hint).all(has)) {
        Some(hint) if is_flag => Some(hint),
        _ if called.is_none() => {
            Some("a command comes first, such as `xdit-cli generate --prompt TEXT`")
        }
        _ if called.is_some_and(|it| it.get_name() == "launch")
            && (!is_flag || guess.is_none()) =>
        {
            Some("the command and its flags come after --: xdit-cli launch --nproc 2 -- generate …")
        }
        _ if !is_flag && has("prompt") => {
            Some("a prompt follows --prompt, in quotes: --prompt \"a red circle\"")
        }
        _ => guess.as_deref(),
    };
    let line = hint.map_or_else(|| said.clone(), |hint| format!("{said}; {hint}"));
    cut(&line)
}

/// What is said of a command that there is not.
fn unknown_command(error: &clap::Error) -> String {
    let line = one_line(&error.render().to_string())
        .replace("unrecognized subcommand", "unknown command")
        .replace("subcommand", "command");
    match line.split_once("; tip: ") {
        Some((said, guess)) => format!("{said}; {guess}"),
        None => format!("{line}; try `xdit-cli --help`"),
    }
}

/// `line` with what clap and Rust say of a wrong number in plain words.
fn plain(line: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        (
            "invalid digit found in string",
            "expected a whole number from 0",
        ),
        (
            "cannot parse integer from empty string",
            "expected a whole number from 0",
        ),
        (
            "number too large to fit in target type",
            "the number is too large",
        ),
        (
            "number too small to fit in target type",
            "the number is too small",
        ),
        ("invalid float literal", "expected a number"),
        ("cannot parse float from empty string", "expected a number"),
    ];
    for (said, plain) in WORDS {
        if let Some(start) = line.strip_suffix(said) {
            return format!("{start}{plain}");
        }
    }
    let range = line.rsplit_once(" is not in ").and_then(|(start, range)| {
        let (least, most) = range.split_once("..=")?;
        let (start, _) = start.rsplit_once(": ")?;
        Some(format!("{start}: expected a number from {least} to {most}"))
    });
    range.unwrap_or_else(|| line.to_owned())
}

/// clap's message without its usage block, on one line.
fn one_line(message: &str) -> String {
    let words: Vec<&str> = message
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .flat_map(str::split_whitespace)
        .collect();
    let line = words.join(" ").replace(" tip: ", "; tip: ");
    cut(line.strip_prefix("error: ").unwrap_or(&line))
}

fn cut(line: &str) -> String {
    const LONGEST: usize = 400;
    if line.chars().count() > LONGEST {
        return line.chars().take(LONGEST).chain(['…']).collect();
    }
    line.to_owned()
}

#[cfg(test)]
mod tests;
