//! Text encoders: their configurations.

mod clip_config;
mod t5_config;

pub use clip_config::ClipTextConfig;
pub use t5_config::T5Config;
