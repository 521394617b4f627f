//! Prepares prompts for text encoders, and repeats rows of prompts for images.

use xdit_kernels::Tensor;

use crate::error::{Error, Result};
use crate::files::model_index::ModelIndex;
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::quote;
use crate::text::tokenizers::{Encoded, Tokenizer};

/// CLIP's context.
pub(crate) const CLIP_LENGTH: usize = 77;

/// The tokenizer classes of any text encoder.
const TOKENIZERS: &[&str] = &[
    "CLIPTokenizer",
    "CLIPTokenizerFast",
    "T5Tokenizer",
    "T5TokenizerFast",
    "BertTokenizer",
    "BertTokenizerFast",
    "TokenizersBackend",
    "PreTrainedTokenizerFast",
];

/// The text encoder of a tokenizer.
pub(crate) struct Reader {
    /// The folder of the encoder.
    pub(crate) folder: &'static str,
    /// The number of rows of its embedding.
    pub(crate) vocab_size: usize,
    /// The largest number of tokens that it reads of a prompt.
    pub(crate) length: usize,
}

/// Reads the tokenizer in the folder `name` and checks that it fits its text encoder: the special tokens around a prompt must
/// be few enough and known to the encoder.
///
/// # Errors
/// As [`Tokenizer::read`]; [`Error::BadConfig`] if they do not fit.
pub(crate) fn tokenizer(
    source: &ModelSource,
    index: &ModelIndex,
    name: &str,
    reader: Reader,
) -> Result<Tokenizer> {
    let class = &index.expect(name, TOKENIZERS)?.class;
    let tokenizer = Tokenizer::read(source, name, class)?;
    let (special, folder) = (tokenizer.special_tokens(), reader.folder);
    if special > reader.length {
        return Err(Error::BadConfig {
            file: source.shown(&format!("{name}/tokenizer.json")),
            field: "post_processor".into(),
            expected: format!(
                "at most {} special tokens around a prompt: {folder} reads no more tokens",
                reader.length
            ),
            found: special.to_string(),
        });
    }
    let empty = tokenizer.encode("", reader.length)?;
    match empty
        .ids
        .iter()
        .find(|id| **id as usize >= reader.vocab_size)
    {
        Some(id) => Err(unknown_id(
            source.shown(&format!("{folder}/config.json")),
            *id,
            reader.vocab_size,
        )),
        None => Ok(tokenizer.with_vocab_size(reader.vocab_size)),
    }
}

fn unknown_id(file: String, id: u32, vocab_size: usize) -> Error {
    Error::BadConfig {
        file,
        field: "vocab_size".into(),
        expected: format!("more than {id}, an id of its tokenizer"),
        found: vocab_size.to_string(),
    }
}

/// Returns the ids of `prompts`, and warns of each prompt that was cut.
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

/// Like [`tokenize`], for encoders with a mask of padding.
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
                    removed.tokens, quote::reason(&removed.text)
                ));
            }
            match encoded.ids.iter().find(|id| **id as usize >= vocab_size) {
                Some(id) => Err(unknown_id(format!("{folder}/config.json"), *id, vocab_size)),
                None => Ok(encoded),
            }
        })
        .collect()
}

/// Repeats each row `times` in succession.
pub(crate) fn repeat(rows: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(rows.clone());
    }
    let views = (0..rows.dim(0) * times)
        .map(|i| rows.view().narrow(0, i / times, 1))
        .collect::<xdit_kernels::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&views, 0)?)
}
