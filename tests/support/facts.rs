//! The facts that the pictures of the demo's prompts must show (`demo/facts.json`).

use std::path::Path;

use serde_json::Value;
use xdit_models::Image;

/// A JSON file of `demo/`.
///
/// # Panics
/// If there is none.
pub fn json(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../demo")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// Mean colour of the pixels at most `half` from the one that holds the point (x, y), given as fractions.
fn patch_mean(image: &Image, x: f64, y: f64, half: usize) -> [f64; 3] {
    let column = ((x * image.width as f64) as usize).min(image.width - 1);
    let row = ((y * image.height as f64) as usize).min(image.height - 1);
    let (mut sum, mut count) = ([0.0; 3], 0.0);
    for y in row.saturating_sub(half)..(row + half + 1).min(image.height) {
        for x in column.saturating_sub(half)..(column + half + 1).min(image.width) {
            let pixel = &image.rgb[3 * (y * image.width + x)..][..3];
            (0..3).for_each(|c| sum[c] += f64::from(pixel[c]));
            count += 1.0;
        }
    }
    sum.map(|sum| sum / count)
}

fn rgb(value: &Value) -> [f64; 3] {
    [0, 1, 2].map(|c| value[c].as_f64().expect("a colour"))
}

/// Index of the choice nearest in sRGB.
fn nearest(color: [f64; 3], choices: &[[f64; 3]]) -> usize {
    let distance = |choice: &[f64; 3]| (0..3).map(|c| (choice[c] - color[c]).powi(2)).sum::<f64>();
    let by_distance = |a: &&[f64; 3], b: &&[f64; 3]| distance(a).total_cmp(&distance(b));
    let best = choices.iter().min_by(by_distance).expect("a choice");
    choices
        .iter()
        .position(|choice| choice == best)
        .expect("it is one of them")
}

/// The prompts, and the colours that they name.
#[derive(Debug)]
pub struct Prompts {
    /// One object a prompt: `prompt`, `seed`, and what must stand where.
    pub facts: Vec<Value>,
    palette: Vec<(String, [f64; 3])>,
}

impl Prompts {
    /// All of them.
    ///
    /// # Panics
    /// If the files of `demo/` are not what they should be.
    pub fn read() -> Self {
        let (facts, expected) = (json("facts.json"), json("expected.json"));
        let palette = expected["palette"].as_object().expect("a palette");
        Self {
            facts: facts.as_array().expect("facts").clone(),
            palette: palette
                .iter()
                .map(|(name, color)| (name.clone(), rgb(color)))
                .collect(),
        }
    }

    /// Whether a picture shows what its prompt says where it says so: the check of `demo/check.py`.
    ///
    /// # Panics
    /// If `fact` is not one of the facts.
    pub fn shows(&self, image: &Image, fact: &Value) -> bool {
        shows(image, fact, &self.palette)
    }
}

fn shows(image: &Image, fact: &Value, palette: &[(String, [f64; 3])]) -> bool {
    let named: Vec<[f64; 3]> = palette.iter().map(|(_, rgb)| *rgb).collect();
    let objects = fact["objects"].as_array().expect("objects");
    let number = |value: &Value| value.as_f64().expect("a number");
    let objects_pass = objects.iter().all(|object| {
        let inside = &object["inside"];
        let mean = patch_mean(image, number(&inside[0]), number(&inside[1]), 3);
        palette[nearest(mean, &named)].0 == object["color"].as_str().expect("a colour")
    });
    let shades: Vec<[f64; 3]> = fact["background"]["rgb"]
        .as_array()
        .expect("shades")
        .iter()
        .map(rgb)
        .collect();
    let choices = [shades.clone(), named].concat();
    let clear = |x: f64, y: f64| {
        objects.iter().all(|object| {
            let center = &object["center"];
            (x - number(&center[0])).hypot(y - number(&center[1]))
                > 1.4 * number(&object["radius"]) + 0.03
        })
    };
    let cells = (0..64).map(|i| {
        (
            f64::from(i % 8) / 8.0 + 0.0625,
            f64::from(i / 8) / 8.0 + 0.0625,
        )
    });
    let probes: Vec<_> = cells.filter(|(x, y)| clear(*x, *y)).collect();
    let right = probes
        .iter()
        .filter(|(x, y)| nearest(patch_mean(image, *x, *y, 1), &choices) < shades.len());
    objects_pass && right.count() as f64 >= 0.75 * probes.len() as f64
}
