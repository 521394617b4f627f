//! The subject of a measurement: a pipeline, prompts with seeds, sizes and steps.

use std::path::Path;

use serde_json::Value;
use xdit_models::{Image, ModelSource, Request};
use xdit_tests::facts::Prompts;

use super::{Failure, Key};

pub(super) const STAGES: [usize; 2] = [2, 4];
pub(super) const PATCHES: [usize; 3] = [2, 4, 8];
pub(super) const WARMUPS: [usize; 4] = [0, 1, 2, 4];

/// A pipeline, and what it is asked to draw.
pub(super) struct Subject {
    pub(super) source: ModelSource,
    /// Sides of the square pictures in pixels.
    pub(super) sides: Vec<usize>,
    /// Numbers of steps.
    pub(super) steps: Vec<usize>,
    /// Each with its seed.
    pub(super) prompts: Vec<(String, u64)>,
    max_sequence_length: Option<usize>,
    use_resolution_binning: Option<bool>,
    /// What its pictures must show; random weights show nothing.
    facts: Option<Prompts>,
}

impl Subject {
    /// The trained demo with the prompts of `demo/facts.json`.
    pub(super) fn demo() -> Result<Self, Failure> {
        let facts = Prompts::read();
        let prompts = facts.facts.iter().map(|fact| {
            let prompt = fact["prompt"].as_str().ok_or("a prompt")?;
            let seed = fact["seed"].as_u64().ok_or("a seed")?;
            Ok((prompt.to_owned(), seed))
        });
        Ok(Self {
            source: ModelSource::demo(),
            sides: vec![256, 512],
            steps: vec![20, 50],
            prompts: prompts.collect::<Result<_, Failure>>()?,
            max_sequence_length: None,
            use_resolution_binning: None,
            facts: Some(facts),
        })
    }

    /// What `name` means: `demo`, or a JSON file with a `pipeline` (a folder, from that of the file), `sides`, `steps`,
    /// `prompts` (the first has seed 0, the next 1) and, if they are not the pipeline's own, a `max_sequence_length` and
    /// `use_resolution_binning`.
    pub(super) fn find(name: &str) -> Result<Self, Failure> {
        if name == "demo" {
            return Self::demo();
        }
        let file = Path::new(name);
        let text = std::fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
        let json: Value = serde_json::from_str(&text)?;
        let wrong = |field: &str| format!("{name}: {field} is missing or of another type");
        let list = |field: &str| json[field].as_array().ok_or(wrong(field));
        let numbers = |field: &str| {
            let numbers = list(field)?.iter().map(|n| n.as_u64().map(|n| n as usize));
            numbers.collect::<Option<Vec<_>>>().ok_or(wrong(field))
        };
        let folder = json["pipeline"].as_str().ok_or(wrong("pipeline"))?;
        let prompts = list("prompts")?.iter().zip(0..);
        let prompts = prompts.map(|(prompt, seed)| Some((prompt.as_str()?.to_owned(), seed)));
        let length = &json["max_sequence_length"];
        let length = length.as_u64().map(|n| n as usize);
        Ok(Self {
            source: ModelSource::folder(file.with_file_name(folder))?,
            sides: numbers("sides")?,
            steps: numbers("steps")?,
            prompts: prompts.collect::<Option<_>>().ok_or(wrong("prompts"))?,
            max_sequence_length: length,
            use_resolution_binning: json["use_resolution_binning"].as_bool(),
            facts: None,
        })
    }

    /// The call that draws a picture.
    pub(super) fn request(&self, key: Key) -> Result<Request, Failure> {
        let (prompt, seed) = self.prompts.get(key.prompt).ok_or("so many prompts")?;
        let request = Request::new([prompt])
            .seed(*seed)
            .height(key.side)
            .width(key.side)
            .num_inference_steps(key.steps);
        let request = match self.use_resolution_binning {
            Some(binning) => request.use_resolution_binning(binning),
            None => request,
        };
        Ok(match self.max_sequence_length {
            Some(length) => request.max_sequence_length(length),
            None => request,
        })
    }

    /// Whether a picture shows what its prompt says, where that can be known.
    pub(super) fn right(&self, image: &Image, prompt: usize) -> Option<bool> {
        let facts = self.facts.as_ref()?;
        Some(facts.shows(image, facts.facts.get(prompt)?))
    }
}
