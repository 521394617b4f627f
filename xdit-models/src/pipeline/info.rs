//! Facts about a pipeline from its configurations and the headers of its weights. No weights are read.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files::model_index::ModelIndex;
use crate::files::source::ModelSource;
use crate::files::weights::Weights;
use crate::pipeline::families;
use crate::quote;
use crate::text::{BertConfig, ClipTextConfig, T5Config};
use crate::vae::VaeConfig;

/// The facts about a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PipelineInfo {
    /// The folder or the pipeline's name.
    pub name: String,
    /// The name of its class in diffusers.
    pub class: String,
    /// The version of diffusers that wrote it, if it is recorded.
    pub diffusers_version: Option<String>,
    /// Its components, by name.
    pub components: Vec<ComponentInfo>,
}

/// The facts about a component of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ComponentInfo {
    /// The component's name and folder.
    pub name: String,
    /// The Python class of the component.
    pub class: String,
    /// The number of its parameters.
    pub parameters: u64,
    /// The number of parameters in each stored dtype.
    pub dtypes: BTreeMap<String, u64>,
    /// The stored bytes of its weights.
    pub bytes: u64,
    /// Its files, by their paths in the pipeline.
    pub files: Vec<String>,
    /// The number of attention heads, if it has attention.
    pub heads: Option<usize>,
    /// The width of a head, if it has attention.
    pub head_dim: Option<usize>,
    /// The number of blocks of each kind.
    pub blocks: BTreeMap<String, usize>,
}

/// Returns the facts about the pipeline in `source`, with the weights of `variant` as [`ModelSource::open_weights`] finds them.
/// Without a variant, components without plain weights are described by another variant.
///
/// # Errors
/// As [`ModelIndex::read`]; errors for components whose configuration or weights' headers are missing or damaged.
///
/// # Examples
/// ```
/// # #[cfg(feature = "demo")] {
/// let info = xdit_models::info::describe(&xdit_models::ModelSource::demo(), None)?;
/// let transformer = info.components.iter().find(|c| c.name == "transformer").unwrap();
/// assert_eq!(info.class, "FluxPipeline");
/// assert_eq!((transformer.heads, transformer.head_dim), (Some(4), Some(32)));
/// assert_eq!(transformer.blocks["single_transformer_blocks"], 6);
/// # }
/// # Ok::<(), xdit_models::Error>(())
/// ```
pub fn describe(source: &ModelSource, variant: Option<&str>) -> Result<PipelineInfo> {
    let index = ModelIndex::read(source)?;
    let files = source.list()?;
    let components = index
        .components
        .iter()
        .map(|(name, component)| {
            let folder = format!("{name}/");
            let mut info = ComponentInfo {
                name: name.clone(),
                class: component.class.clone(),
                parameters: 0,
                dtypes: BTreeMap::new(),
                bytes: 0,
                files: files
                    .iter()
                    .filter(|file| file.starts_with(&folder))
                    .cloned()
                    .collect(),
                heads: None,
                head_dim: None,
                blocks: BTreeMap::new(),
            };
            if info.shape_from(source)? {
                info.count(&weights(source, name, variant, &info.files)?);
            }
            // An index may contain a megabyte of either.
            info.name = quote::cut(&info.name);
            info.class = quote::cut(&info.class);
            Ok(info)
        })
        .collect::<Result<_>>()?;
    Ok(PipelineInfo {
        name: source.name().to_owned(),
        class: index.pipeline.name().to_owned(),
        diffusers_version: index.diffusers_version.as_deref().map(quote::cut),
        components,
    })
}

impl ComponentInfo {
    /// Returns heads and blocks from the configuration, and whether the component has weights.
    fn shape_from(&mut self, source: &ModelSource) -> Result<bool> {
        let config = || source.config(&format!("{}/config.json", self.name));
        if let Some(family) = families::of_transformer(&self.class) {
            let facts = (family.facts)(&config()?)?;
            self.shape(facts.heads, facts.head_dim, &facts.blocks);
            return Ok(true);
        }
        match self.class.as_str() {
            "BertModel" => {
                let c = BertConfig::read(&config()?)?;
                let head_dim = c.hidden_size / c.num_attention_heads;
                let blocks = [("layer", c.num_hidden_layers)];
                self.shape(c.num_attention_heads, head_dim, &blocks);
            }
            "CLIPTextModel" | "CLIPTextModelWithProjection" => {
                let c = ClipTextConfig::read(&config()?)?;
                let blocks = [("layers", c.num_hidden_layers)];
                self.shape(c.num_attention_heads, c.head_dim(), &blocks);
            }
            "T5EncoderModel" | "MT5EncoderModel" => {
                let c = T5Config::read_as(&self.class, &config()?)?;
                self.shape(c.num_heads, c.d_kv, &[("block", c.num_layers)]);
            }
            "AutoencoderKL" => {
                let levels = VaeConfig::read(&config()?)?.block_out_channels;
                let blocks = [("down_blocks", levels.len()), ("up_blocks", levels.len())];
                self.shape(1, levels[levels.len() - 1], &blocks);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn shape(&mut self, heads: usize, head_dim: usize, blocks: &[(&str, usize)]) {
        self.heads = Some(heads);
        self.head_dim = Some(head_dim);
        self.blocks = blocks
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| ((*kind).to_owned(), *count))
            .collect();
    }

    fn count(&mut self, weights: &Weights) {
        for (_, tensor) in weights.tensors() {
            let numbers: u64 = tensor.shape.iter().map(|dim| *dim as u64).product();
            self.parameters += numbers;
            *self.dtypes.entry(tensor.dtype.to_string()).or_default() += numbers;
        }
        self.bytes = weights.total_bytes();
    }
}

/// Opens the weights of `component`: of `variant`, or, without one, plain weights or those of any variant.
fn weights(
    source: &ModelSource,
    component: &str,
    variant: Option<&str>,
    files: &[String],
) -> Result<Weights> {
    if variant.is_some() {
        return source.open_weights(component, variant);
    }
    let missing = match source.open_weights(component, None) {
        Err(error @ Error::MissingFile { .. }) => error,
        other => return other,
    };
    // model.VARIANT.safetensors, or model.VARIANT-00001-of-00002.safetensors
    let variant = files.iter().find_map(|file| {
        let (_, rest) = file.strip_suffix(".safetensors")?.rsplit_once('.')?;
        Some(rest.split("-0").next().unwrap_or(rest))
    });
    match variant {
        Some(variant) => source.open_weights(component, Some(variant)),
        None => Err(missing),
    }
}
