//! Several prompts with several images each: every image reads the masks of its own prompt, unless it copies diffusers.

use crate::generate::pixels;
use crate::hunyuan::on;
use crate::picture_record::record;
use crate::program::run;
use crate::replay::{read, write};

const PROMPTS: &str = "--prompt 一个红色的圆 a-red-circle-on-a-blue-background";

#[test]
fn every_image_is_that_of_its_prompt_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let draw = |more: &str| on(folder, "hunyuan-v1.2", "generate", more).succeeded();
    let drawn = |name: &str| pixels(&folder.join(name)).2;
    let batch = format!(
        "{PROMPTS} --num-images-per-prompt 2 --seed 1 2 3 4 --negative-prompt 模糊 blurry-and-of-low-quality"
    );
    let outcome = draw(&format!("{batch} --output own.png"));
    let told = outcome
        .stderr
        .matches("diffusers draws other images")
        .count();
    assert_eq!(told, 1, "{outcome:?}");
    let outcome = draw(&format!("{batch} --exact-diffusers --output exact.png"));
    assert_eq!(outcome.stderr, "");
    let alone = [
        ("一个红色的圆", "模糊"),
        (
            "a-red-circle-on-a-blue-background",
            "blurry-and-of-low-quality",
        ),
    ];
    for (image, (prompt, negative)) in alone.into_iter().flat_map(|each| [each; 2]).enumerate() {
        let seed = image + 1;
        draw(&format!(
            "--prompt {prompt} --negative-prompt {negative} --seed {seed} --output alone.png"
        ));
        let (own, exact) = (
            drawn(&format!("own_{image:03}.png")),
            drawn(&format!("exact_{image:03}.png")),
        );
        assert!(own == drawn("alone.png"), "image {image}");
        // The first and the last image get their own masks in diffusers too.
        assert_eq!(exact == own, [0, 3].contains(&image), "image {image}");
    }
    for (name, exact) in [("own_001.png", false), ("exact_001.png", true)] {
        assert_eq!(
            record(&folder.join(name))["request"]["exact_diffusers"],
            exact
        );
        run(folder, ["replay", name]).succeeded();
    }
    // Records of before there was the field hold what diffusers draws.
    let file = folder.join("exact_001.png");
    let (pixels, text) = read(&file);
    let old = text.replace("\"exact_diffusers\":true,", "");
    assert_ne!(text, old);
    write(&file, [80, 96], &pixels, &old);
    run(folder, ["replay", "exact_001.png"]).succeeded();
}

#[test]
fn other_models_have_no_such_fault() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["generate", "--prompt", "a", "--exact-diffusers"];
    let outcome = run(folder.path(), words);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("--exact-diffusers"), "{outcome:?}");
}
