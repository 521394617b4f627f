//! Tokenizers: read all file forms of the hub, and return the ids of transformers.
//!
//! transformers 5 builds a `CLIPTokenizer`, `T5Tokenizer` or `BertTokenizer` from the vocabulary and ignores the rest of a
//! `tokenizer.json`. It uses the whole `tokenizer.json` for a `TokenizersBackend`. This module does the same.
//! `model_index.json` names the class.
//!
//! The tokenizers library splits words. Models, added tokens and templates are implemented here, so that the memory of a
//! tokenizer is proportional to its files and the time for a prompt is proportional to its length, for all contents of files
//! (`limits.rs`).

mod added;
mod added_vocabulary;
mod bert;
mod bpe;
mod charsmap;
mod clip;
mod engine;
mod json;
mod limits;
mod search;
mod spiece;
mod steps;
mod t5;
mod template;
mod tokenizer;
mod unigram;
mod vocabulary;
mod whole;
mod wordpiece;

use crate::error::{Error, Result, shorten};
use crate::files::source::ModelSource;

pub use tokenizer::{Encoded, Removed, Tokenizer};

use tokenizer::guarded;

impl Tokenizer {
    /// Reads the tokenizer in the folder `component` of `source`, of the transformers class that `model_index.json` names.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another class, [`Error::MissingFile`] without a vocabulary, [`Error::BadFile`] and
    /// [`Error::BadConfig`] for invalid files.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::ModelSource;
    /// use xdit_models::text::tokenizers::Tokenizer;
    /// let source = ModelSource::memory([
    ///     ("tokenizer/vocab.json", br#"{"h":0,"i</w>":1,"hi</w>":2,"<|startoftext|>":3,"<|endoftext|>":4}"#.to_vec()),
    ///     ("tokenizer/merges.txt", b"#version: 0.2\nh i</w>\n".to_vec()),
    /// ]);
    /// let tokenizer = Tokenizer::read(&source, "tokenizer", "CLIPTokenizer")?;
    /// let encoded = tokenizer.encode("Hi hi hi", 4)?;
    /// assert_eq!(encoded.ids, [3, 2, 2, 4]);
    /// assert_eq!(encoded.removed.unwrap().text, "hi");
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn read(source: &ModelSource, component: &str, class: &str) -> Result<Self> {
        guarded(&source.shown(component), || match class {
            "CLIPTokenizer" | "CLIPTokenizerFast" => clip::read(source, component),
            "T5Tokenizer" | "T5TokenizerFast" => t5::read(source, component),
            "BertTokenizer" | "BertTokenizerFast" => bert::read(source, component),
            "TokenizersBackend" | "PreTrainedTokenizerFast" => whole::read(source, component),
            _ => Err(Error::Unsupported {
                file: source.shown(crate::files::config::MODEL_INDEX),
                field: component.into(),
                found: format!("\"{}\"", shorten(class)),
                supported: "CLIPTokenizer, T5Tokenizer, BertTokenizer, TokenizersBackend, \
                    PreTrainedTokenizerFast"
                    .into(),
            }),
        })
    }
}

/// Returns the longest sequence of the tokenizer in the folder `component`, if its `tokenizer_config.json` contains it.
///
/// # Errors
/// As [`ModelSource::config`].
pub(crate) fn model_max_length(source: &ModelSource, component: &str) -> Result<Option<usize>> {
    Ok(added::model_max_length(&added::tokenizer_config(
        source, component,
    )?))
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod library;
#[cfg(test)]
mod tests;
