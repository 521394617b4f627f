//! `model_index.json`: which classes a diffusers pipeline is made of.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::config::{ConfigFile, MODEL_INDEX};
use crate::files::source::{ModelSource, OPTIONAL_T5};

/// The largest number of components. SD3 has nine.
const MAX_COMPONENTS: usize = 64;

/// The supported pipelines.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PipelineClass {
    /// Flux.1 (dev and schnell), text to image.
    Flux,
    /// Stable Diffusion 3 and 3.5, text to image.
    Sd3,
    /// HunyuanDiT v1.1 and v1.2, text to image.
    HunyuanDit,
}

impl PipelineClass {
    /// All supported pipelines with the names of their classes in diffusers, in the order of the variants.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("FluxPipeline", Self::Flux),
        ("StableDiffusion3Pipeline", Self::Sd3),
        ("HunyuanDiTPipeline", Self::HunyuanDit),
    ];

    /// Returns the name of the class in diffusers.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// The class of a component.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ComponentClass {
    /// `diffusers` or `transformers`.
    pub library: String,
    /// The Python class.
    pub class: String,
}

/// The parsed `model_index.json` of a pipeline.
///
/// # Examples
/// ```
/// use xdit_models::{ModelIndex, ModelSource};
/// let source = ModelSource::memory([(
///     "model_index.json",
///     br#"{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}"#.to_vec(),
/// )]);
/// let index = ModelIndex::read(&source)?;
/// assert_eq!(index.pipeline.name(), "FluxPipeline");
/// index.expect("vae", &["AutoencoderKL"])?;
/// assert!(index.expect("transformer", &["FluxTransformer2DModel"]).is_err());
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelIndex {
    /// The class of the pipeline.
    pub pipeline: PipelineClass,
    /// The version of diffusers that wrote it, if it is recorded.
    pub diffusers_version: Option<String>,
    /// The existing components, by name. Components that are null are left out.
    pub components: BTreeMap<String, ComponentClass>,
    config: ConfigFile,
}

impl ModelIndex {
    /// Reads the index of the pipeline in `source`.
    ///
    /// # Errors
    /// [`Error::MissingFile`](crate::Error::MissingFile) without a `model_index.json`,
    /// [`Error::Unsupported`](crate::Error::Unsupported) with the list of supported pipelines for any other class,
    /// [`Error::BadConfig`](crate::Error::BadConfig) for a component that is not `[library, class]`,
    /// [`Error::BadFile`](crate::Error::BadFile) for more than 64 components.
    pub fn read(source: &ModelSource) -> Result<Self> {
        let config = source.config(MODEL_INDEX)?;
        let supported = PipelineClass::ALL;
        let pipeline = match config.value("_class_name").and_then(Value::as_str) {
            Some(name) => supported
                .iter()
                .find(|(class, _)| *class == name)
                .map(|(_, pipeline)| *pipeline),
            None => return Err(config.bad("_class_name", "the name of a pipeline class")),
        };
        let Some(pipeline) = pipeline else {
            return Err(
                config.unsupported("_class_name", supported.iter().map(|(class, _)| *class))
            );
        };
        let mut components = BTreeMap::new();
        let there = |name: &&str| !name.starts_with('_') && !source.hides(name);
        for name in config.fields().filter(there) {
            // An index also contains plain options of the pipeline, such as `requires_safety_checker`.
            let Some(Value::Array(pair)) = config.value(name) else {
                continue;
            };
            match pair.as_slice() {
                _ if components.len() == MAX_COMPONENTS => {
                    let reason = format!("more than {MAX_COMPONENTS} components");
                    return Err(Error::bad_file(config.file(), reason));
                }
                [Value::Null, Value::Null] => {}
                [Value::String(library), Value::String(class)] => {
                    let component = ComponentClass {
                        library: library.clone(),
                        class: class.clone(),
                    };
                    components.insert(name.to_owned(), component);
                }
                _ => return Err(config.bad(name, "a pair [library, class]")),
            }
        }
        let diffusers_version = config
            .value("_diffusers_version")
            .and_then(Value::as_str)
            .map(str::to_owned);
        Ok(Self {
            pipeline,
            diffusers_version,
            components,
            config,
        })
    }

    /// Checks that the component `name` exists and is one of the `supported` classes.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) if the pipeline does not have the component,
    /// [`Error::Unsupported`](crate::Error::Unsupported) for another class.
    pub fn expect(&self, name: &str, supported: &[&str]) -> Result<&ComponentClass> {
        match self.components.get(name) {
            None => Err(self.config.bad(
                name,
                format!("[library, class]: {} needs it", self.pipeline.name()),
            )),
            Some(component) if supported.contains(&component.class.as_str()) => Ok(component),
            Some(_) => Err(self.config.unsupported(name, supported.iter().copied())),
        }
    }
}

impl ModelSource {
    /// Returns the same pipeline without T5, like diffusers' `text_encoder_3=None, tokenizer_3=None`. The transformer reads
    /// zeros instead of T5's embeddings. The files of T5 are not read, which saves memory. A pipeline without T5 is unchanged.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a pipeline that needs T5 (all except Stable Diffusion 3), and as [`ModelIndex::read`].
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::ModelSource;
    /// let refused = ModelSource::demo().without_t5().unwrap_err();
    /// assert!(refused.to_string().starts_with("`no_t5`"), "{refused}");
    /// # }
    /// ```
    pub fn without_t5(self) -> Result<Self> {
        let class = ModelIndex::read(&self)?.pipeline;
        if class != PipelineClass::Sd3 {
            let reason = format!(
                "{} cannot draw without T5, {} can",
                class.name(),
                PipelineClass::Sd3.name()
            );
            return Err(Error::left_out("no_t5", &reason));
        }
        Ok(self.hiding(OPTIONAL_T5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ModelIndex> {
        ModelIndex::read(&ModelSource::memory([(
            MODEL_INDEX,
            json.as_bytes().to_vec(),
        )]))
    }

    #[test]
    fn null_components_are_left_out() {
        let index = read(
            r#"{"_class_name": "FluxPipeline", "_diffusers_version": "0.42.1", "image_encoder": [null, null],
            "requires_safety_checker": false, "tokenizer": ["transformers", "CLIPTokenizer"]}"#,
        )
        .unwrap();
        assert_eq!(index.components.keys().collect::<Vec<_>>(), ["tokenizer"]);
        assert_eq!(index.diffusers_version.as_deref(), Some("0.42.1"));
        let error = index
            .expect("tokenizer", &["BertTokenizer"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`tokenizer`") && error.contains("BertTokenizer"),
            "{error}"
        );
    }

    #[test]
    fn other_pipelines_get_the_list() {
        let error = read(r#"{"_class_name": "StableDiffusionPipeline"}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("StableDiffusionPipeline") && error.contains("FluxPipeline"),
            "{error}"
        );
        assert!(read("{}").is_err());
        assert!(read(r#"{"_class_name": "FluxPipeline", "vae": ["diffusers"]}"#).is_err());
        let missing = ModelIndex::read(&ModelSource::memory::<&str>([])).unwrap_err();
        assert!(matches!(missing, Error::MissingFile { .. }), "{missing}");
    }
}
