//! The small trained pipeline that is part of the crate.

use crate::files::source::{DEMO, ModelSource};

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../demo/flux/", $path)).as_slice())),*]
    };
}

/// Every file of `demo/flux`.
static FILES: &[(&str, &[u8])] = files![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/tokenizer.json",
    "tokenizer_2/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

impl ModelSource {
    /// Returns the demo pipeline: a complete Flux.1 of four million parameters, trained to draw coloured shapes at 256×256 (`a
    /// yellow square on a blue background`, `a small green star at the top on a striped pink background`, two shapes beside or
    /// above each other). It is part of the binary, so nothing is downloaded.
    ///
    /// # Examples
    /// ```
    /// let demo = xdit_models::ModelSource::demo();
    /// assert!(demo.exists("model_index.json"));
    /// ```
    #[must_use]
    pub fn demo() -> Self {
        Self::embedded(DEMO, FILES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let folder =
            ModelSource::folder(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/flux")).unwrap();
        assert_eq!(ModelSource::demo().list().unwrap(), folder.list().unwrap());
    }
}
