//! What a pipeline is made of, from its configurations and the headers of its weights: no weights are read.

use std::collections::BTreeMap;

use serde::Serialize;

/// The facts about a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PipelineInfo {
    /// The folder or the pipeline's name.
    pub name: String,
    /// diffusers' name of its class.
    pub class: String,
    /// The diffusers version that wrote it, when it says.
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
    /// The Python class that it is made of.
    pub class: String,
    /// Numbers in its weights.
    pub parameters: u64,
    /// How many of them are stored in which dtype.
    pub dtypes: BTreeMap<String, u64>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files, by their path in the pipeline.
    pub files: Vec<String>,
    /// Attention heads, when it has attention.
    pub heads: Option<usize>,
    /// Width of a head, when it has attention.
    pub head_dim: Option<usize>,
    /// How many blocks of each kind it has.
    pub blocks: BTreeMap<String, usize>,
}
