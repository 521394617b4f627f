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
            _ => Err(Failure::usage(one_line(&error.render().to_string()))),
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

/// What is said of a flag that there is not: what other programs mean by it, if the called subcommand has the flags for that,
/// or clap's own guess.
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
    match hints::instead_of(word).filter(|hint| hints::flags(hint).all(has)) {
        Some(hint) => {
            let said = line.split("; tip:").next().unwrap_or(&line);
            format!("{said}; {hint}")
        }
        None => line,
    }
}

/// clap's message without its usage block, on one line.
fn one_line(message: &str) -> String {
    let words: Vec<&str> = message
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .flat_map(str::split_whitespace)
        .collect();
    let line = words.join(" ").replace(" tip: ", "; tip: ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    const LONGEST: usize = 400;
    if line.chars().count() > LONGEST {
        return line.chars().take(LONGEST).chain(['…']).collect();
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::cli::Command;

    fn words(line: &[&str]) -> Vec<OsString> {
        ["xdit-cli"]
            .iter()
            .chain(line)
            .map(OsString::from)
            .collect()
    }

    fn generate(line: &[&str]) -> crate::args::cli::GenerateArgs {
        match parse(words(line)) {
            Ok(Parsed::Run(cli)) => match cli.command {
                Command::Generate(args) => *args,
                other => panic!("not generate: {other:?}"),
            },
            Ok(Parsed::Text(text)) => panic!("only text: {text}"),
            Err(failure) => panic!("{failure}"),
        }
    }

    fn usage(line: &[&str]) -> String {
        match parse(words(line)) {
            Err(failure) => {
                assert_eq!(failure.exit_code(), 2);
                let message = failure.to_string();
                assert!(!message.contains('\n'), "more than one line: {message}");
                message
            }
            Ok(_) => panic!("accepted: {line:?}"),
        }
    }

    #[test]
    fn underscores_in_names_but_not_in_values() {
        let args = generate(&[
            "generate",
            "--num_inference_steps=4",
            "--prompt",
            "a_b",
            "--true-cfg_scale",
            "2.5",
            "--output",
            "my_file.png",
            "--prompt_2=c_d",
        ]);
        assert_eq!(args.call.num_inference_steps, Some(4));
        assert_eq!(args.prompts.prompt, ["a_b"]);
        assert_eq!(args.call.prompt_2, ["c_d"]);
        assert_eq!(args.call.true_cfg_scale, Some(2.5));
        assert_eq!(args.output.output.unwrap().to_str(), Some("my_file.png"));
    }

    #[test]
    fn several_prompts_and_seeds() {
        let args = generate(&[
            "generate",
            "--prompt",
            "a",
            "",
            "--prompt=c",
            "--seed",
            "1",
            "-2",
        ]);
        assert_eq!(args.prompts.prompt, ["a", "", "c"]);
        assert_eq!(args.call.seed, [1, -2]);
        let args = generate(&["generate", "--prompt", "a", "-1"]);
        assert_eq!(args.prompts.prompt, ["a", "-1"]);
        assert_eq!(generate(&["generate", "--prompt", "a"]).call.seed, [42]);
    }

    #[test]
    fn torch_takes_these_seeds() {
        for seed in ["18446744073709551615", "-9223372036854775808"] {
            let args = generate(&["generate", "--prompt", "a", "--seed", seed]);
            assert_eq!(args.call.seed, [seed.parse::<i128>().unwrap()]);
        }
        assert!(
            usage(&[
                "generate",
                "--prompt",
                "a",
                "--seed",
                "18446744073709551616"
            ])
            .contains("2^64-1")
        );
    }

    #[test]
    fn hints_name_flags_of_the_called_subcommand() {
        let drawn = usage(&["generate", "--prompt", "a", "--steps", "3"]);
        assert!(drawn.ends_with("; use --num-inference-steps"), "{drawn}");
        for line in [&["info", "--steps", "3"][..], &["plan", "--outdir", "x"]] {
            let told = usage(line);
            assert!(!told.contains("; use --"), "{told}");
        }
    }

    #[test]
    fn what_looks_like_a_number_is_a_value() {
        let scale = usage(&["generate", "--prompt", "a", "--guidance_scale", "-inf"]);
        assert!(scale.contains("'-inf' for '--guidance-scale"), "{scale}");
        let seed = usage(&["generate", "--prompt", "a", "--seed", "1", "-1e999"]);
        assert!(seed.contains("'-1e999' for '--seed"), "{seed}");
        let args = generate(&["generate", "--prompt", "a", "-nan"]);
        assert_eq!(args.prompts.prompt, ["a", "-nan"]);
        assert!(usage(&["generate", "--prompt", "a", "--quiet", "-inf"]).contains("-i"));
        let short = |line: &[&str]| usage(&[&["generate", "--prompt", "a"], line].concat());
        for line in [&["-s", "-inf"][..], &["-s", "1", "-inf"], &["-s1", "-inf"]] {
            let seed = short(line);
            assert!(seed.contains("'-inf' for '--seed"), "{line:?}: {seed}");
        }
        let width = short(&["-W", "-1e999"]);
        assert!(width.contains("'-1e999' for '--width"), "{width}");
        assert!(short(&["-q", "-inf"]).contains("-i"));
        let args = generate(&["generate", "-p", "-nan"]);
        assert_eq!(args.prompts.prompt, ["-nan"]);
    }

    #[test]
    fn mistakes_are_one_line() {
        assert!(usage(&["generate", "--prompt", "a", "--widht", "64"]).contains("--width"));
        assert!(usage(&["generate", "--no_such_flag"]).contains("--no_such_flag"));
        assert!(usage(&["generate"]).contains("--prompt"));
        assert!(usage(&["generate", "--prompt", "a", "--dtype", "f8"]).contains("bf16"));
        assert!(
            usage(&["generate", "--prompt", "a", "--guidance-scale", "nan"]).contains("finite")
        );
        assert!(usage(&["generate", "--prompt", "a", "--threads", "0"]).contains("--threads"));
        let negative = usage(&["generate", "--prompt", "a", "--height", "-16"]);
        assert!(negative.contains("'-16' for '--height"), "{negative}");
        assert!(usage(&[]).contains("generate"));
        assert!(usage(&["paint"]).contains("paint"));
        assert!(usage(&["generate", &format!("--{}", "x".repeat(100_000))]).len() < 1000);
    }

    #[test]
    fn names_that_others_use() {
        let line = [
            "generate",
            "--prompt",
            "a",
            "--dtype",
            "bfloat16",
            "--output_type",
            "pil",
        ];
        let args = generate(&line);
        assert_eq!(args.run.dtype, crate::args::compute::Precision::Bf16);
        assert_eq!(
            args.output.output_type,
            crate::args::output::OutputFormat::Png
        );
    }

    #[test]
    fn flags_of_other_programs_get_a_hint() {
        for (flag, hint) in [
            ("--steps", "--num-inference-steps"),
            ("--sampler", "--scheduler"),
            ("--batch", "--num-images-per-prompt"),
            ("--use_parallel_vae", "by default; --no-parallel-vae"),
            ("--tensor_parallel_degree", "--ulysses-degree"),
            ("--lora", "LoRA is not supported"),
        ] {
            let told = usage(&["generate", "--prompt", "a", flag, "3"]);
            assert!(told.contains(flag) && told.contains(hint), "{told}");
            assert!(!told.contains("tip:"), "{told}");
        }
    }

    #[test]
    fn short_flags() {
        let args = generate(&[
            "generate", "-p", "a b", "-o", "x.png", "-s", "7", "-W", "64", "-H", "32", "-n", "2",
            "-q",
        ]);
        assert_eq!(args.prompts.prompt, ["a b"]);
        assert_eq!(args.output.output.unwrap().to_str(), Some("x.png"));
        assert_eq!(args.call.seed, [7]);
        assert_eq!((args.call.width, args.call.height), (Some(64), Some(32)));
        assert_eq!(args.call.num_images_per_prompt, 2);
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }
}
