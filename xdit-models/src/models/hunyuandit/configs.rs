//! The configurations of a HunyuanDiT pipeline, which describe it without its weights.

use xdit_cfg::GuidancePlan;

use super::HunyuanConfig;
use super::sizes::standard_size;
use crate::error::{Error, Result};
use crate::files::config::ConfigFile;
use crate::files::model_index::{ModelIndex, PipelineClass};
use crate::files::source::ModelSource;
use crate::models::dit::Guide;
use crate::pipeline::configurations::{Configurations, TransformerFacts};
use crate::pipeline::fits;
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::resolve::{ResolvedRequest, Rules};
use crate::schedulers::SchedulerConfig;
use crate::text::{BertConfig, T5Config};
use crate::vae::VaeConfig;

/// The numbers of BERT and mT5 tokens in every call (diffusers `HunyuanDiTPipeline.__call__`).
pub(super) const TEXT_LENGTHS: [usize; 2] = [77, 256];

/// The configurations of all components, checked against each other.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) index: ModelIndex,
    pub(crate) bert: BertConfig,
    pub(crate) t5: T5Config,
    pub(crate) hunyuan: HunyuanConfig,
    pub(crate) vae: VaeConfig,
    scheduler: SchedulerConfig,
    scheduler_file: ConfigFile,
}

impl Configurations for Configs {
    const CLASS: PipelineClass = PipelineClass::HunyuanDit;
    const TRANSFORMER: &'static str = "HunyuanDiT2DModel";

    fn facts(config: &ConfigFile) -> Result<TransformerFacts> {
        let config = HunyuanConfig::read(config)?;
        Ok(TransformerFacts {
            heads: config.num_attention_heads,
            head_dim: config.attention_head_dim,
            blocks: vec![("blocks", config.num_layers)],
        })
    }

    fn read(source: &ModelSource) -> Result<Self> {
        let index = ModelIndex::read(source)?;
        index.expect("text_encoder", &["BertModel"])?;
        let t5 = index.expect("text_encoder_2", &["T5EncoderModel", "MT5EncoderModel"])?;
        index.expect("transformer", &[Self::TRANSFORMER])?;
        index.expect("vae", &["AutoencoderKL"])?;
        let scheduler = index.expect("scheduler", SchedulerConfig::DIFFUSION)?;
        let config = |folder| fits::component(source, folder);
        let bert_file = config("text_encoder")?;
        let scheduler_file = source.config("scheduler/scheduler_config.json")?;
        let configs = Self {
            bert: BertConfig::read(&bert_file)?,
            t5: T5Config::read_as(&t5.class, &config("text_encoder_2")?)?,
            hunyuan: HunyuanConfig::read(&config("transformer")?)?,
            vae: fits::vae(&config("vae")?)?,
            scheduler: SchedulerConfig::read_as(&scheduler.class, &scheduler_file)?,
            scheduler_file,
            index,
        };
        let positions = configs.bert.max_position_embeddings;
        fits::positions(&bert_file, positions, TEXT_LENGTHS[0])?;
        configs.check_widths(&config("transformer")?)?;
        Ok(configs)
    }

    /// The defaults of diffusers (`HunyuanDiTPipeline.__call__`).
    fn defaults(&self, _: &ModelSource) -> Defaults {
        let side = self.hunyuan.sample_size * self.vae.scale_factor();
        Defaults {
            height: side,
            width: side,
            num_inference_steps: 50,
            guidance_scale: 5.0,
            max_sequence_length: TEXT_LENGTHS[1],
            scheduler: self.scheduler.class(),
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            max_sequence_length: TEXT_LENGTHS[1],
            clip_tokens: TEXT_LENGTHS[0],
            patch: self.hunyuan.patch_size,
            cuts_sizes: true,
            standard_size: Some(standard_size),
            max_tokens: None,
            even_sigmas: false,
        }
    }

    /// Returns the scheduler of `request`: that of the pipeline, or another class with its options.
    fn scheduler(&self, request: &Request) -> Result<SchedulerConfig> {
        request.check_scheduler(SchedulerConfig::DIFFUSION)?;
        match &request.scheduler {
            None => Ok(self.scheduler.clone()),
            Some(class) => SchedulerConfig::read_as(class, &self.scheduler_file),
        }
    }

    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide> {
        request.refuse(&[
            ("prompt_2", request.prompt_2.is_some()),
            ("prompt_3", request.prompt_3.is_some()),
            ("negative_prompt_2", request.negative_prompt_2.is_some()),
            ("negative_prompt_3", request.negative_prompt_3.is_some()),
            ("true_cfg_scale", request.true_cfg_scale != 1.0),
            ("clip_skip", request.clip_skip != 0),
            (
                "skip_guidance_layers",
                !request.skip_guidance_layers.is_empty(),
            ),
            ("sigmas", request.sigmas.is_some()),
        ])?;
        if let Some(length) = request.max_sequence_length
            && length != TEXT_LENGTHS[1]
        {
            let allowed = format!("{}: this model reads no other number", TEXT_LENGTHS[1]);
            return Err(Error::invalid("max_sequence_length", length, allowed));
        }
        if !self.hunyuan.style_and_size {
            request.refuse_sizes()?;
        }
        let guidance_scale = request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32;
        Ok(Guide {
            embedded: 0.0,
            plan: GuidancePlan {
                guidance_scale,
                guidance_rescale: request.guidance_rescale as f32,
                skip_layers: None,
            },
            skipped: Vec::new(),
        })
    }

    fn warnings(&self, request: &Request, resolved: &ResolvedRequest) -> Vec<String> {
        match resolved.guide.plan.guidance_scale > 1.0 {
            true => Vec::new(),
            false => request.unused_without_guidance(),
        }
    }

    fn noise_channels(&self) -> usize {
        self.hunyuan.in_channels
    }
}

impl Configs {
    /// Checks that the width of each component is the input width of the next.
    fn check_widths(&self, config: &ConfigFile) -> Result<()> {
        let hunyuan = &self.hunyuan;
        let scale = self.vae.scale_factor();
        fits::sample_size(config, hunyuan.sample_size, hunyuan.patch_size, scale)?;
        for (field, found, expected, of) in [
            (
                "cross_attention_dim",
                hunyuan.cross_attention_dim,
                self.bert.hidden_size,
                "text_encoder's hidden_size",
            ),
            (
                "cross_attention_dim_t5",
                hunyuan.cross_attention_dim_t5,
                self.t5.d_model,
                "text_encoder_2's d_model",
            ),
            (
                "in_channels",
                hunyuan.in_channels,
                self.vae.latent_channels,
                "the vae's latent_channels",
            ),
            (
                "text_len",
                hunyuan.text_len,
                TEXT_LENGTHS[0],
                "the tokens that the pipeline reads with BERT",
            ),
            (
                "text_len_t5",
                hunyuan.text_len_t5,
                TEXT_LENGTHS[1],
                "the tokens that the pipeline reads with mT5",
            ),
        ] {
            if found != expected {
                return Err(config.bad(field, format!("{expected}, {of}")));
            }
        }
        Ok(())
    }
}
