//! The flags of a call, with their names in diffusers.
//!
//! Each flag is an argument of `Request` of the same name, and serialises as this argument. The flags about computation and
//! output are in `args::cli`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueHint};
use serde::Serialize;

use crate::args::headings::{FLUX, FLUX_AND_SD3, HUNYUANDIT, SD3};
use crate::args::seed::SeedChoice;
use crate::args::suggested::Suggested;

/// The prompts.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Image")]
pub(crate) struct PromptArgs {
    /// What to draw; several form one batch.
    ///
    /// Each prompt has at most 65536 bytes (64 KiB) and may be empty.
    #[arg(long, short, required_unless_present = "prompt_file", num_args = 1.., action = ArgAction::Append, value_name = "TEXT",
          value_hint = ValueHint::Other)]
    pub prompt: Vec<String>,
    /// Draw every line of FILE (- is stdin).
    ///
    /// A line is a prompt, or a JSON object with "prompt" and any of the flags of a call, e.g. {"prompt": "a cat", "seed": 7,
    /// "height": 512}. The program writes each result as soon as it is finished, as NAME-LINE.png, or without --output as
    /// xdit-SEED-LINE.png. It skips empty lines and lines that begin with #. It reports bad lines, draws the others, and ends
    /// with exit code 1.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["prompt", "dump"])]
    #[serde(skip)]
    pub prompt_file: Option<PathBuf>,
    /// With --prompt-file: the first line uses --seed, the next --seed + 1, and so on; several seeds move on by their number.
    /// A line with its own seed keeps it.
    #[arg(long)]
    #[serde(skip)]
    pub increment_seed: bool,
    /// With --prompt-file: skip a line if all of its files exist.
    #[arg(long)]
    #[serde(skip)]
    pub skip_existing: bool,
}

/// diffusers' arguments of `pipe(...)` besides the prompt. Missing flags have the pipeline's defaults.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Image")]
pub(crate) struct CallArgs {
    /// What not to draw; needs guidance above 1.
    ///
    /// Guidance is --true-cfg-scale for Flux, --guidance-scale for SD3 and HunyuanDiT.
    #[arg(long, num_args = 1.., action = ArgAction::Append, value_name = "TEXT", value_hint = ValueHint::Other)]
    pub negative_prompt: Vec<String>,
    /// Width in pixels.
    ///
    /// The rules and the default are those of --height.
    #[arg(long, short = 'W', value_name = "PIXELS")]
    pub width: Option<usize>,
    /// Height in pixels.
    ///
    /// Flux rounds it down to a multiple of 16; SD3 takes only multiples of 16 [default: the size of the model's training,
    /// mostly 1024; demo: 256].
    #[arg(long, short = 'H', value_name = "PIXELS")]
    pub height: Option<usize>,
    /// Denoising steps.
    ///
    /// Fewer steps are faster and coarser [default: 28; schnell: 4; HunyuanDiT: 50; demo: 20].
    #[arg(long, value_name = "N")]
    pub num_inference_steps: Option<usize>,
    /// How closely to follow the prompt.
    ///
    /// Flux: distilled guidance, ignored without a guidance embedding (schnell, demo) [default: 3.5]. SD3, HunyuanDiT:
    /// classifier-free guidance; 1 or less is off and halves the time [default: 7; HunyuanDiT: 5].
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    pub guidance_scale: Option<f64>,
    /// Seed, or the word random.
    ///
    /// One value seeds one generator for the whole batch. Several values seed one generator for each image. The numbers are
    /// those of torch.Generator("cpu"). random draws a seed and reports it.
    #[arg(long, short, num_args = 1.., action = ArgAction::Append, value_name = "N", default_value = "42",
          allow_negative_numbers = true, value_hint = ValueHint::Other)]
    pub seed: Vec<SeedChoice>,
    /// Images for each prompt.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
    pub num_images_per_prompt: usize,
    /// Prompt of the second text encoder (Flux: T5; SD3: the larger CLIP), one for all or one for each prompt [default:
    /// --prompt].
    #[arg(long, num_args = 1.., action = ArgAction::Append, value_name = "TEXT", value_hint = ValueHint::Other,
          help_heading = FLUX_AND_SD3)]
    pub prompt_2: Vec<String>,
    /// Negative prompt of the second text encoder [default: --negative-prompt].
    #[arg(long, num_args = 1.., action = ArgAction::Append, value_name = "TEXT", value_hint = ValueHint::Other,
          help_heading = FLUX_AND_SD3)]
    pub negative_prompt_2: Vec<String>,
    /// The noise levels, from high to low, each between 0 and 1. Their number is the number of steps [default: evenly spaced from
    /// 1 down].
    #[arg(long, value_name = "A,B,…", num_args = 1.., value_delimiter = ',', value_parser = finite,
          allow_negative_numbers = true, help_heading = FLUX_AND_SD3)]
    pub sigmas: Vec<f64>,
    /// T5 tokens; a longer prompt is cut, with a warning [default: 512; schnell and SD3: 256; demo: 24].
    #[arg(long, value_name = "N", help_heading = FLUX_AND_SD3)]
    pub max_sequence_length: Option<usize>,
    /// Classifier-free guidance with --negative-prompt; 1 is off, values above 1 double the time [default: 1].
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true, help_heading = FLUX)]
    pub true_cfg_scale: Option<f64>,
    /// Prompt of the third text encoder (T5), one for all or one for each prompt [default: --prompt].
    #[arg(long, num_args = 1.., action = ArgAction::Append, value_name = "TEXT", value_hint = ValueHint::Other,
          help_heading = SD3)]
    pub prompt_3: Vec<String>,
    /// Negative prompt of the third text encoder [default: --negative-prompt].
    #[arg(long, num_args = 1.., action = ArgAction::Append, value_name = "TEXT", value_hint = ValueHint::Other,
          help_heading = SD3)]
    pub negative_prompt_3: Vec<String>,
    /// Number of layers of both CLIPs to skip before the last [default: 0].
    #[arg(long, value_name = "N", help_heading = SD3)]
    pub clip_skip: Option<usize>,
    /// Blocks, counted from 0, that skip-layer guidance leaves out, e.g. 7,8,9. It is made for 3.5-medium, and runs the model
    /// a third time in some steps [default: none].
    #[arg(long, value_name = "A,B,…", num_args = 1.., value_delimiter = ',', help_heading = SD3)]
    pub skip_guidance_layers: Vec<usize>,
    /// Strength of skip-layer guidance [default: 2.8].
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true, help_heading = SD3)]
    pub skip_layer_guidance_scale: Option<f64>,
    /// Fraction of the steps after which skip-layer guidance begins [default: 0.01].
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true, help_heading = SD3)]
    pub skip_layer_guidance_start: Option<f64>,
    /// Fraction of the steps at which skip-layer guidance ends [default: 0.2].
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true, help_heading = SD3)]
    pub skip_layer_guidance_stop: Option<f64>,
    /// The sampler, by the name of its class in diffusers: DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler or
    /// EulerDiscreteScheduler. It uses the options in the pipeline's scheduler_config.json, like diffusers' from_config
    /// [default: the class in this file].
    #[arg(long, value_name = "NAME", hide_possible_values = true, help_heading = HUNYUANDIT, value_parser = Suggested(&[
        "DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"]))]
    pub scheduler: Option<String>,
    /// Rescale the guided prediction towards the standard deviation of the conditional one, 0 to 1 [default: 0].
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true, help_heading = HUNYUANDIT)]
    pub guidance_rescale: Option<f64>,
    /// Draw in the size nearest to --height and --width that the model was trained on [default: on].
    #[arg(long, overrides_with = "no_use_resolution_binning", help_heading = HUNYUANDIT)]
    pub use_resolution_binning: bool,
    /// Draw at exactly --height and --width.
    #[arg(long, overrides_with = "use_resolution_binning", help_heading = HUNYUANDIT)]
    pub no_use_resolution_binning: bool,
    /// Only v1.1: size of the image before scaling, an input of the model [default: 1024 1024].
    #[arg(long, num_args = 2, value_names = ["H", "W"], help_heading = HUNYUANDIT)]
    pub original_size: Option<Vec<usize>>,
    /// Only v1.1: size of the image, an input of the model [default: --height --width].
    #[arg(long, num_args = 2, value_names = ["H", "W"], help_heading = HUNYUANDIT)]
    pub target_size: Option<Vec<usize>>,
    /// Only v1.1: top left corner of the crop, an input of the model [default: 0 0].
    #[arg(long, num_args = 2, value_names = ["Y", "X"], help_heading = HUNYUANDIT)]
    pub crops_coords_top_left: Option<Vec<usize>>,
    /// With several prompts of several images each, let images read the masks of other prompts, like diffusers, where this is
    /// a mistake [default: each reads the mask of its own prompt].
    #[arg(long, help_heading = HUNYUANDIT)]
    pub exact_diffusers: bool,
}

/// Parses a number that is neither infinite nor NaN, because JSON cannot hold these.
fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err("expected a finite number".into()),
    }
}
