//! The flags that name a pipeline and its files.

use std::path::PathBuf;

use clap::{Args, ValueHint, builder::NonEmptyStringValueParser};

use crate::args::headings::SD3;

/// The pipeline.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A folder, a hub id, or demo (the default).
    ///
    /// A folder has diffusers' layout, a hub id is a name such as black-forest-labs/FLUX.1-schnell, and demo is the small
    /// pipeline inside this binary. Write ./demo for a folder of this name.
    #[arg(long, value_name = "PATH|HUB_ID", value_hint = ValueHint::DirPath, value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
}

/// Which files of the pipeline.
#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// Its files on the hub.
    #[command(flatten)]
    pub hub: HubArgs,
    /// Leave T5 out, like diffusers' text_encoder_3=None, tokenizer_3=None. Its files are neither read nor downloaded, which
    /// saves memory. --prompt-3 then has no effect.
    #[arg(long, help_heading = SD3)]
    pub no_t5: bool,
}

/// The files of a pipeline on the hub.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct HubArgs {
    /// Branch, tag or commit of the hub repository [default: main].
    #[arg(long, value_name = "REVISION", value_parser = NonEmptyStringValueParser::new())]
    pub revision: Option<String>,
    /// Weight files with this infix, e.g. fp16 for model.fp16.safetensors.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub variant: Option<String>,
    /// The hub's cache folder [default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub download_dir: Option<PathBuf>,
}
