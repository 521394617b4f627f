//! From prompts to what encoders read, and from their rows to images'.

use xdit_kernels::Tensor;

use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::tokenizers::{Encoded, Tokenizer};

/// CLIP's context.
pub(crate) const CLIP_LENGTH: usize = 77;

/// The classes of tokenizers, for any text encoder.
pub(crate) const TOKENIZERS: &[&str] = &[
    "CLIPTokenizer",
    "CLIPTokenizerFast",
    "T5Tokenizer",
    "T5TokenizerFast",
    "BertTokenizer",
    "BertTokenizerFast",
    "TokenizersBackend",
    "PreTrainedTokenizerFast",
];

/// The ids of `prompts`, with a warning for each that was cut.
pub(crate) fn tokenize(
    tokenizer: &Tokenizer,
    prompts: &[String],
    length: usize,
    encoder: [&str; 2],
    vocab_size: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<u32>>> {
    let encoded = tokenize_masked(tokenizer, prompts, length, encoder, vocab_size, observer)?;
    Ok(encoded.into_iter().map(|encoded| encoded.ids).collect())
}

/// As [`tokenize`], for encoders that are told which ids are padding.
pub(crate) fn tokenize_masked(
    tokenizer: &Tokenizer,
    prompts: &[String],
    length: usize,
    [encoder, folder]: [&str; 2],
    vocab_size: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Encoded>> {
    prompts
        .iter()
        .map(|prompt| {
            let encoded = tokenizer.encode(prompt, length)?;
            if let Some(removed) = &encoded.removed {
                observer.warning(&format!(
                    "the end of the prompt ({} tokens) was cut off, because {encoder} reads {length} tokens: {}",
                    removed.tokens, removed.text
                ));
            }
            match encoded.ids.iter().find(|id| **id as usize >= vocab_size) {
                Some(id) => Err(Error::BadConfig {
                    file: format!("{folder}/config.json"),
                    field: "vocab_size".into(),
                    expected: format!("more than {id}, an id of its tokenizer"),
                    found: vocab_size.to_string(),
                }),
                None => Ok(encoded),
            }
        })
        .collect()
}

/// Each row `times` in succession.
pub(crate) fn repeat(rows: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(rows.clone());
    }
    let views = (0..rows.dim(0) * times)
        .map(|i| rows.view().narrow(0, i / times, 1))
        .collect::<xdit_kernels::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&views, 0)?)
}
