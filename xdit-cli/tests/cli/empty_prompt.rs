//! An empty prompt is drawn, as by diffusers, by every family and from every place that prompts come from.

use std::fs;

use crate::picture_record::record;
use crate::program::{demo, names, run};
use crate::sd3::golden;

const SMALL: [&str; 6] = [
    "--height",
    "64",
    "--width",
    "64",
    "--num-inference-steps",
    "1",
];

#[test]
fn every_family_draws_it_and_replays_it() {
    let models = [
        demo(),
        golden("flux-dev"),
        golden("sd35-medium"),
        golden("hunyuan-v1.2"),
    ];
    for model in models {
        let folder = tempfile::tempdir().unwrap();
        let model = model.to_str().unwrap();
        for (name, prompt) in [("empty.png", ""), ("blank.png", " \t\n")] {
            let words = [
                "generate", "--model", model, "--output", name, "--prompt", prompt,
            ];
            run(folder.path(), words.iter().chain(&SMALL)).succeeded();
            let file = folder.path().join(name);
            assert_eq!(record(&file)["request"]["prompt"][0], prompt, "{model}");
            let again = run(folder.path(), ["replay", name]).succeeded();
            assert!(again.stdout.contains("identical"), "{model}: {again:?}");
        }
        let words = ["plan", "--model", model, "--prompt", ""];
        run(folder.path(), words.iter().chain(&SMALL)).succeeded();
    }
}

#[test]
fn the_prompt_of_an_encoder_may_be_empty() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |model: &str, name: &str, more: &[&str]| {
        let model = golden(model);
        let words = ["generate", "--prompt", "a", "--output", name, "--model"];
        let words = words.iter().copied().chain(model.to_str());
        let words = words.chain(SMALL).chain(more.iter().copied());
        run(folder.path(), words).succeeded();
        fs::read(folder.path().join(name)).unwrap()
    };
    let plain = draw("flux-dev", "a.png", &[]);
    let empty = draw("flux-dev", "b.png", &["--prompt-2", ""]);
    assert!(plain != empty, "T5 of Flux reads the empty prompt");
}

#[test]
fn a_line_of_a_prompt_file_may_be_empty() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lines"), "{\"prompt\": \"\"}\n").unwrap();
    let words = ["generate", "--prompt-file", "lines", "--output", "a.png"];
    run(folder.path(), words.iter().chain(&SMALL)).succeeded();
    assert_eq!(names(folder.path()), ["a-00001.png", "lines"]);
}
