//! Command lines, and what is said about wrong ones.

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
fn words_in_wrong_places_get_the_way_out() {
    for (line, told) in [
        (&["info", "--steps", "3"][..], "unknown flag '--steps'"),
        (
            &["generate", "a", "red", "circle"],
            "unexpected word 'a'; a prompt follows --prompt, in quotes: --prompt \"a red circle\"",
        ),
        (
            &["--prompt", "a"],
            "unknown flag '--prompt'; a command comes first, such as `xdit-cli generate --prompt TEXT`",
        ),
        (&["info", "demo", "sd3"], "unexpected word 'sd3'"),
        (&["draw"], "unknown command 'draw'; try `xdit-cli --help`"),
        (
            &["generat"],
            "unknown command 'generat'; a similar command exists: 'generate'",
        ),
        (
            &["generate", "--promt", "a"],
            "unknown flag '--promt'; a similar flag exists: '--prompt'",
        ),
    ] {
        assert_eq!(usage(line), told);
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
    assert!(usage(&["generate", "--prompt", "a", "--guidance-scale", "nan"]).contains("finite"));
    assert!(usage(&["generate", "--prompt", "a", "--threads", "0"]).contains("--threads"));
    let negative = usage(&["generate", "--prompt", "a", "--height", "-16"]);
    assert!(negative.contains("'-16' for '--height"), "{negative}");
    assert!(usage(&[]).contains("generate"));
    assert!(usage(&["paint"]).contains("paint"));
    assert!(usage(&["generate", &format!("--{}", "x".repeat(100_000))]).len() < 1000);
}

#[test]
fn wrong_numbers_are_told_in_plain_words() {
    for (flags, told) in [
        (
            "--threads 0",
            "'0' for '--threads <N>': expected a number from 1 to 65535",
        ),
        (
            "--cfg-degree 3",
            "'3' for '--cfg-degree <1|2>': expected a number from 1 to 2",
        ),
        (
            "--height abc",
            "'abc' for '--height <PIXELS>': expected a whole number from 0",
        ),
        ("--width 99999999999999999999", "the number is too large"),
        (
            "--max-drift x",
            "'x' for '--max-drift <X>': expected a number",
        ),
        (
            "--cpu-tier x",
            "'x' for '--cpu-tier <TIER>': expected a tier of this processor: portable",
        ),
    ] {
        let line = ["generate", "--prompt", "a"].into_iter();
        let message = usage(&line.chain(flags.split(' ')).collect::<Vec<_>>());
        assert!(message.contains(told), "{flags}: {message}");
    }
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
        "generate", "-p", "a b", "-o", "x.png", "-s", "7", "-W", "64", "-H", "32", "-n", "2", "-q",
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
