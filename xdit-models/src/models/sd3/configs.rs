//! What the configurations of a Stable Diffusion 3 pipeline say: all that can be known of it without its weights.

use super::Sd3Config;
use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::model_index::ModelIndex;
use crate::files::source::ModelSource;
use crate::pipeline::fits;
use crate::pipeline::request::Defaults;
use crate::schedulers::{FlowMatchEulerConfig, SchedulerConfig};
use crate::text::prompts::CLIP_LENGTH;
use crate::text::tokenizers::model_max_length;
use crate::text::{ClipTextConfig, T5Config};
use crate::vae::VaeConfig;

/// The configurations of all components, which fit together.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) index: ModelIndex,
    pub(crate) clip: ClipTextConfig,
    pub(crate) clip_2: ClipTextConfig,
    /// `None` where the pipeline has no third text encoder.
    pub(crate) t5: Option<T5Config>,
    pub(crate) sd3: Sd3Config,
    pub(crate) vae: VaeConfig,
    pub(crate) scheduler: FlowMatchEulerConfig,
    /// Tokens of each CLIP.
    pub(crate) clip_length: usize,
}

impl Configs {
    /// Those of the pipeline in `source`.
    pub(crate) fn read(source: &ModelSource) -> Result<Self> {
        let index = ModelIndex::read(source)?;
        for name in ["text_encoder", "text_encoder_2"] {
            index.expect(name, &["CLIPTextModelWithProjection"])?;
        }
        index.expect("transformer", &["SD3Transformer2DModel"])?;
        index.expect("vae", &["AutoencoderKL"])?;
        index.expect("scheduler", SchedulerConfig::FLOW_MATCHING)?;
        let t5 = match index.components.contains_key("text_encoder_3") {
            false => None,
            true => {
                index.expect("text_encoder_3", &["T5EncoderModel"])?;
                Some(T5Config::read(&fits::component(source, "text_encoder_3")?)?)
            }
        };
        // One length for both, as diffusers has it.
        let clip_length = model_max_length(source, "tokenizer")?.unwrap_or(CLIP_LENGTH);
        let clip = |folder| {
            let file = fits::component(source, folder)?;
            let clip = ClipTextConfig::read(&file)?;
            fits::positions(&file, clip.max_position_embeddings, clip_length)?;
            Ok::<_, crate::Error>(clip)
        };
        let sd3_file = fits::component(source, "transformer")?;
        let configs = Self {
            index,
            clip: clip("text_encoder")?,
            clip_2: clip("text_encoder_2")?,
            t5,
            sd3: Sd3Config::read(&sd3_file)?,
            vae: fits::vae(&fits::component(source, "vae")?)?,
            scheduler: FlowMatchEulerConfig::read(
                &source.config("scheduler/scheduler_config.json")?,
            )?,
            clip_length,
        };
        configs.check_widths(&sd3_file)?;
        Ok(configs)
    }

    /// What ties the components together: the width of one is the input of another.
    fn check_widths(&self, config: &ConfigFile) -> Result<()> {
        let sd3 = &self.sd3;
        fits::sample_size(
            config,
            sd3.sample_size,
            sd3.patch_size,
            self.vae.scale_factor(),
        )?;
        let pooled = self.clip.projection_dim + self.clip_2.projection_dim;
        if self.sd3.pooled_projection_dim != pooled {
            let expected = format!("{pooled}, the projection_dim of both CLIP encoders");
            return Err(config.bad("pooled_projection_dim", expected));
        }
        let joint = self.sd3.joint_attention_dim;
        let clip = self.clip.hidden_size + self.clip_2.hidden_size;
        if clip > joint {
            let expected = format!("at least {clip}, the hidden_size of both CLIP encoders");
            return Err(config.bad("joint_attention_dim", expected));
        }
        if let Some(t5) = self.t5.as_ref().filter(|t5| t5.d_model != joint) {
            let expected = format!("{}, text_encoder_3's d_model", t5.d_model);
            return Err(config.bad("joint_attention_dim", expected));
        }
        for (field, channels) in [
            ("in_channels", self.sd3.in_channels),
            ("out_channels", self.sd3.out_channels),
        ] {
            if channels != self.vae.latent_channels {
                let expected = format!("{}, the vae's latent_channels", self.vae.latent_channels);
                return Err(config.bad(field, expected));
            }
        }
        Ok(())
    }

    /// diffusers' own defaults (`StableDiffusion3Pipeline.__call__`).
    pub(crate) fn defaults(&self) -> Defaults {
        let side = self.sd3.sample_size * self.vae.scale_factor();
        Defaults {
            height: side,
            width: side,
            num_inference_steps: 28,
            guidance_scale: 7.0,
            max_sequence_length: 256,
            scheduler: SchedulerConfig::FLOW_MATCHING[0],
        }
    }
}
