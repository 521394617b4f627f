//! What the configurations of a HunyuanDiT pipeline say: all that can be known of it without its weights.

use super::HunyuanConfig;
use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::model_index::ModelIndex;
use crate::files::source::ModelSource;
use crate::pipeline::fits;
use crate::pipeline::request::{Defaults, Request};
use crate::schedulers::SchedulerConfig;
use crate::text::{BertConfig, T5Config};
use crate::vae::VaeConfig;

/// Tokens of BERT and of mT5, in every call (diffusers `HunyuanDiTPipeline.__call__`).
pub(super) const TEXT_LENGTHS: [usize; 2] = [77, 256];

/// The configurations of all components, which fit together.
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

impl Configs {
    /// Those of the pipeline in `source`.
    pub(crate) fn read(source: &ModelSource) -> Result<Self> {
        let index = ModelIndex::read(source)?;
        index.expect("text_encoder", &["BertModel"])?;
        let t5 = index.expect("text_encoder_2", &["T5EncoderModel", "MT5EncoderModel"])?;
        index.expect("transformer", &["HunyuanDiT2DModel"])?;
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

    /// What ties the components together: the width of one is the input of another.
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

    /// The scheduler that `request` asks for: that of the pipeline, or another made from its options.
    pub(crate) fn scheduler(&self, request: &Request) -> Result<SchedulerConfig> {
        request.check_scheduler(SchedulerConfig::DIFFUSION)?;
        match &request.scheduler {
            None => Ok(self.scheduler.clone()),
            Some(class) => SchedulerConfig::read_as(class, &self.scheduler_file),
        }
    }

    /// diffusers' own defaults (`HunyuanDiTPipeline.__call__`).
    pub(crate) fn defaults(&self) -> Defaults {
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
}
