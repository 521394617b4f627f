//! Invalid numbers: the message always names the flag.

use crate::bad_input::refused;
use crate::program::{names, run};

const WHOLE: &[&str] = &[
    "--height",
    "--width",
    "--num-inference-steps",
    "--max-sequence-length",
    "--num-images-per-prompt",
    "--clip-skip",
    "--skip-guidance-layers",
    "--original-size",
    "--target-size",
    "--crops-coords-top-left",
    "--seed",
    "--threads",
    "--ulysses-degree",
    "--ring-degree",
    "--cfg-degree",
    "--pipefusion-parallel-degree",
    "--num-pipeline-patch",
    "--warmup-steps",
    "--attn-layer-num-for-pp",
    "--data-parallel-degree",
    "--rank-timeout",
];

const REAL: &[&str] = &[
    "--guidance-scale",
    "--true-cfg-scale",
    "--guidance-rescale",
    "--skip-layer-guidance-scale",
    "--skip-layer-guidance-start",
    "--skip-layer-guidance-stop",
    "--max-drift",
];

const NO_NUMBERS: &[&str] = &[
    "-inf",
    "inf",
    "-Infinity",
    "nan",
    "-nan",
    "-NaN",
    "1e999",
    "-1e999",
    "-.5.5",
    "-0x10",
    "-5px",
    "",
    "-",
];

#[test]
fn of_every_flag() {
    let folder = tempfile::tempdir().unwrap();
    // Larger than any type holds.
    let huge = "340282366920938463463374607431768211456";
    for flag in WHOLE.iter().chain(REAL) {
        let overflows: &[&str] = if WHOLE.contains(flag) {
            &[huge, "1.5"]
        } else {
            &[]
        };
        for value in NO_NUMBERS.iter().chain(overflows) {
            let words = ["generate", "--prompt", "a", flag, value];
            refused(&run(folder.path(), words), 2, flag);
        }
    }
    for (command, flag) in [
        ("plan", "--show-schedule"),
        ("plan", "--height"),
        ("replay", "--threads"),
    ] {
        for value in NO_NUMBERS {
            refused(&run(folder.path(), [command, flag, value]), 2, flag);
        }
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

/// Among several values of a flag, and as the value of the flag before.
#[test]
fn in_their_places() {
    let folder = tempfile::tempdir().unwrap();
    for (words, flag) in [
        ("--seed 1 -inf", "--seed"),
        ("--seed 1 2 -nan 4", "--seed"),
        ("--original-size 5 -inf", "--original-size"),
        ("--guidance_scale -inf", "--guidance-scale"),
        ("--guidance-scale=-inf", "--guidance-scale"),
        ("--guidance-scale -inf --seed 3", "--guidance-scale"),
        ("--skip-guidance-layers 7,-inf", "--skip-guidance-layers"),
    ] {
        let words = ["generate", "--prompt", "a"]
            .into_iter()
            .chain(words.split(' '));
        refused(&run(folder.path(), words), 2, flag);
    }
}

/// Numbers of the right kind that nothing can serve.
#[test]
fn too_large() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, value) in [
        ("--guidance-scale", "1e300"),
        ("--true-cfg-scale", "-1e300"),
        ("--max-drift", "1e39"),
        ("--num-inference-steps", "18446744073709551615"),
        ("--num-images-per-prompt", "18446744073709551615"),
        ("--num-pipeline-patch", "18446744073709551615"),
        ("--max-sequence-length", "18446744073709551615"),
        ("--attn-layer-num-for-pp", "18446744073709551615,2"),
    ] {
        let words = [
            "generate",
            "--prompt",
            "a",
            "--pipefusion-parallel-degree",
            "2",
            flag,
            value,
        ];
        refused(&run(folder.path(), words), 2, flag);
    }
    for flag in [
        "--ulysses-degree",
        "--ring-degree",
        "--pipefusion-parallel-degree",
        "--data-parallel-degree",
    ] {
        let words = ["generate", "--prompt", "a", flag, "18446744073709551615"];
        refused(&run(folder.path(), words), 2, "18446744073709551615");
    }
    // The same in a line of a file.
    std::fs::write(
        folder.path().join("p"),
        "{\"prompt\": \"a\", \"guidance_scale\": 1e999}\n{\"prompt\": \"a\", \"height\": -1}\n\
         {\"prompt\": \"a\", \"num_images_per_prompt\": 18446744073709551615}\n",
    )
    .unwrap();
    let outcome = run(folder.path(), ["generate", "--prompt-file", "p"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let told = outcome
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: p:"))
        .count();
    assert_eq!(told, 3, "{outcome:?}");
}
