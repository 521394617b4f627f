//! What pages say about the demo is counted.

use serde_json::Value;

use crate::{read, root};

/// How many prompts of a kind are right, as diffusers draws them, in the words of demo/README.md.
fn counted(kind: impl Fn(&Value) -> bool, right: impl Fn(&Value) -> bool) -> String {
    let json = |file: &str| -> Value {
        serde_json::from_str(&read(&root().join("demo").join(file))).expect("JSON")
    };
    let (facts, expected) = (json("facts.json"), json("expected.json"));
    let facts = facts.as_array().expect("a list");
    let images = expected["images"].as_array().expect("a list");
    assert_eq!(facts.len(), images.len());
    let of_kind: Vec<bool> = facts
        .iter()
        .zip(images)
        .filter(|(fact, _)| kind(fact))
        .map(|(_, image)| right(image))
        .collect();
    let count = of_kind.iter().filter(|right| **right).count();
    format!("{count} of {}", of_kind.len())
}

#[test]
fn the_numbers_about_the_demo_are_counted() {
    let passes = |image: &Value| image["passes"] == true;
    // BACKGROUND_SHARE of demo/check.py.
    let ground = |image: &Value| image["background"].as_f64() >= Some(0.75);
    let objects = |fact: &Value| fact["objects"].as_array().expect("a list").len();
    let ring = |fact: &Value| fact["objects"][0]["shape"] == "ring";
    let all = counted(|_| true, passes);
    let filled = counted(|fact| objects(fact) == 1 && !ring(fact), passes);
    let rings = counted(|fact| objects(fact) == 1 && ring(fact), passes);
    let two = counted(|fact| objects(fact) == 2, passes);
    let grounds = counted(|_| true, ground);
    let page = read(&root().join("demo/README.md"));
    for line in [
        format!("By that check, {all} prompts"),
        format!("| one object, no ring | {filled} |"),
        format!("| one ring | {rings} |"),
        format!("| two objects | {two} |"),
        format!("| backgrounds, of all prompts | {grounds} |"),
    ] {
        assert!(page.contains(&line), "demo/README.md: {line}");
    }
    let readme = read(&root().join("README.md"));
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains(&all), "README.md: {all}");
}
