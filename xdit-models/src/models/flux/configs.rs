//! The configurations of a Flux pipeline, which describe it without its weights.

use xdit_cfg::GuidancePlan;

use super::FluxConfig;
use super::demo;
use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::model_index::{ModelIndex, PipelineClass};
use crate::files::source::ModelSource;
use crate::models::dit::Guide;
use crate::pipeline::configurations::{Configurations, TransformerFacts};
use crate::pipeline::fits;
use crate::pipeline::request::{Defaults, Request, unused};
use crate::pipeline::resolve::{ResolvedRequest, Rules};
use crate::schedulers::{FlowMatchEulerConfig, SchedulerConfig};
use crate::text::prompts::CLIP_LENGTH;
use crate::text::tokenizers::model_max_length;
use crate::text::{ClipTextConfig, T5Config};
use crate::vae::VaeConfig;

/// `FluxPipeline.check_inputs`, and its sigmas.
pub(crate) const RULES: Rules = Rules {
    max_sequence_length: 512,
    clip_tokens: 0,
    patch: 2,
    cuts_sizes: true,
    standard_size: None,
    max_tokens: None,
    even_sigmas: true,
};

/// The configurations of all components, checked against each other.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) index: ModelIndex,
    pub(crate) clip: ClipTextConfig,
    pub(crate) t5: T5Config,
    pub(crate) flux: FluxConfig,
    pub(crate) vae: VaeConfig,
    pub(crate) scheduler: FlowMatchEulerConfig,
    /// The number of CLIP tokens.
    pub(crate) clip_length: usize,
    /// The side in pixels of the images that the autoencoder was made for, if its configuration says it.
    sample_size: Option<usize>,
    /// Whether these are those of the demo.
    is_demo: bool,
}

impl Configurations for Configs {
    const CLASS: PipelineClass = PipelineClass::Flux;
    const TRANSFORMER: &'static str = "FluxTransformer2DModel";

    fn facts(config: &ConfigFile) -> Result<TransformerFacts> {
        let config = FluxConfig::read(config)?;
        Ok(TransformerFacts {
            heads: config.num_attention_heads,
            head_dim: config.attention_head_dim,
            blocks: vec![
                ("transformer_blocks", config.num_layers),
                ("single_transformer_blocks", config.num_single_layers),
            ],
        })
    }

    fn read(source: &ModelSource) -> Result<Self> {
        let index = ModelIndex::read(source)?;
        index.expect("text_encoder", &["CLIPTextModel"])?;
        index.expect("text_encoder_2", &["T5EncoderModel"])?;
        index.expect("transformer", &[Self::TRANSFORMER])?;
        index.expect("vae", &["AutoencoderKL"])?;
        index.expect("scheduler", SchedulerConfig::FLOW_MATCHING)?;
        let clip_file = fits::component(source, "text_encoder")?;
        let clip = ClipTextConfig::read(&clip_file)?;
        let t5 = T5Config::read(&fits::component(source, "text_encoder_2")?)?;
        let flux = FluxConfig::read(&fits::component(source, "transformer")?)?;
        let vae_file = fits::component(source, "vae")?;
        let vae = fits::vae(&vae_file)?;
        let clip_length = model_max_length(source, "tokenizer")?.unwrap_or(CLIP_LENGTH);
        fits::positions(&clip_file, clip.max_position_embeddings, clip_length)?;
        check_widths(source, &flux, &clip, &t5, &vae)?;
        let scheduler =
            FlowMatchEulerConfig::read(&source.config("scheduler/scheduler_config.json")?)?;
        Ok(Self {
            index,
            clip,
            t5,
            flux,
            vae,
            scheduler,
            clip_length,
            sample_size: vae_file.optional_count("sample_size", 1..=1 << 16)?,
            is_demo: source.is_demo(),
        })
    }

    /// Defaults that suit the model: distilled with guidance (FLUX.1-dev), distilled to few steps (FLUX.1-schnell, whose
    /// schedule does not shift with the image size), or neither. The size is the autoencoder's `sample_size` if it is
    /// plausible; diffusers always uses 1024.
    fn defaults(&self, _: &ModelSource) -> Defaults {
        let side = self
            .sample_size
            .filter(|side| (128..=2048).contains(side) && side % 16 == 0)
            .unwrap_or(1024);
        let (num_inference_steps, guidance_scale, max_sequence_length) = match (
            self.flux.guidance_embeds,
            self.scheduler.use_dynamic_shifting,
        ) {
            (true, _) => (28, 3.5, 512),
            (false, false) => (4, 0.0, 256),
            // The captions in the training of the demo pipeline have at most 24 tokens.
            (false, true) if self.is_demo => (20, 0.0, 24),
            (false, true) => (28, 0.0, 512),
        };
        Defaults {
            height: side,
            width: side,
            num_inference_steps,
            guidance_scale,
            max_sequence_length,
            scheduler: SchedulerConfig::FLOW_MATCHING[0],
        }
    }

    fn rules(&self) -> Rules {
        RULES
    }

    fn scheduler(&self, _: &Request) -> Result<SchedulerConfig> {
        Ok(SchedulerConfig::FlowMatchEuler(self.scheduler.clone()))
    }

    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide> {
        request.refuse_conditions(SchedulerConfig::FLOW_MATCHING)?;
        request.refuse(&[
            ("prompt_3", request.prompt_3.is_some()),
            ("negative_prompt_3", request.negative_prompt_3.is_some()),
            ("clip_skip", request.clip_skip != 0),
            (
                "skip_guidance_layers",
                !request.skip_guidance_layers.is_empty(),
            ),
        ])?;
        // Without a negative prompt there is no other branch, for any scale.
        let scale = match request.branches()?.negative {
            Some(_) => request.true_cfg_scale as f32,
            None => 1.0,
        };
        Ok(Guide {
            embedded: request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32,
            plan: GuidancePlan {
                guidance_scale: scale,
                guidance_rescale: 0.0,
                skip_layers: None,
            },
            skipped: Vec::new(),
        })
    }

    fn warnings(&self, request: &Request, resolved: &ResolvedRequest) -> Vec<String> {
        let scale = request.guidance_scale.unwrap_or_default();
        let mut warnings = unused(
            &[("guidance_scale", !self.flux.guidance_embeds && scale != 0.0)],
            "this model has no guidance embedding",
        );
        let guides = request.true_cfg_scale > 1.0;
        let negative = [
            ("negative_prompt", request.negative_prompt.is_some()),
            ("negative_prompt_2", request.negative_prompt_2.is_some()),
        ];
        warnings.extend(match (guides, negative[0].1) {
            (false, _) => unused(
                &negative,
                "there is no guidance, which needs a `true_cfg_scale` above 1",
            ),
            (true, false) => unused(
                &[("true_cfg_scale", true)],
                "there is no `negative_prompt`, which may be empty",
            ),
            (true, true) => Vec::new(),
        });
        if self.is_demo {
            warnings.extend(demo::warnings(request, [resolved.height, resolved.width]));
        }
        warnings
    }

    fn noise_channels(&self) -> usize {
        self.flux.in_channels / 4
    }
}

/// Checks that the width of each component is the input width of the next.
fn check_widths(
    source: &ModelSource,
    flux: &FluxConfig,
    clip: &ClipTextConfig,
    t5: &T5Config,
    vae: &VaeConfig,
) -> Result<()> {
    let config = source.config("transformer/config.json")?;
    for (field, has, needs, of) in [
        (
            "pooled_projection_dim",
            flux.pooled_projection_dim,
            clip.hidden_size,
            "text_encoder's hidden_size",
        ),
        (
            "joint_attention_dim",
            flux.joint_attention_dim,
            t5.d_model,
            "text_encoder_2's d_model",
        ),
        (
            "in_channels",
            flux.in_channels,
            4 * vae.latent_channels,
            "four times the vae's latent_channels",
        ),
        (
            "out_channels",
            flux.out_channels,
            flux.in_channels,
            "in_channels",
        ),
    ] {
        if has != needs {
            return Err(config.bad(field, format!("{needs}, {of}")));
        }
    }
    Ok(())
}
