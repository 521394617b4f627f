//! Text: tokenizers, the encoders CLIP, T5, mT5 and BERT, and the preparation of prompts for them.
//!
//! This module uses `files`, `layers` and `observer`.

mod bert;
mod bert_config;
mod clip;
mod clip_config;
pub(crate) mod prompts;
mod size;
mod t5;
mod t5_config;
#[cfg(test)]
mod test_weights;
pub mod tokenizers;

pub use bert::BertEncoder;
pub use bert_config::BertConfig;
pub use clip::{ClipOutput, ClipTextModel};
pub use clip_config::ClipTextConfig;
pub(crate) use size::EncoderSize;
pub use t5::T5Encoder;
pub use t5_config::T5Config;

use crate::error::{Error, Result};
use xdit_kernels::{Device, Tensor};

/// A tokenizer's mask of `[b, l]` tokens on a device, as attention takes it.
fn key_mask(mask: Option<&[bool]>, shape: [usize; 2], device: &Device) -> Result<Option<Tensor>> {
    let on_device = |mask: &[bool]| {
        let seen: Vec<u8> = mask.iter().map(|seen| u8::from(*seen)).collect();
        Ok(Tensor::from_slice(&seen, shape, device)?)
    };
    mask.map(on_device).transpose()
}

/// The length of all rows of `ids`.
fn check_ids(ids: &[Vec<u32>], longest: Option<usize>) -> Result<usize> {
    let length = ids.first().map_or(0, Vec::len);
    let fits = length > 0
        && longest.is_none_or(|longest| length <= longest)
        && ids.iter().all(|row| row.len() == length);
    if !fits {
        let expected = longest.map_or_else(
            || "rows of token ids of one length".to_owned(),
            |longest| format!("rows of token ids of one length, at most {longest}"),
        );
        let lengths: Vec<usize> = ids.iter().map(Vec::len).take(8).collect();
        return Err(Error::Kernel(xdit_kernels::Error::shape(
            "text encoder",
            expected,
            lengths,
        )));
    }
    Ok(length)
}
