//! `CLIPTokenizer`: byte-level BPE over lower-cased words (transformers `models/clip/tokenization_clip.py`).

use ::tokenizers::decoders::byte_level::ByteLevel;
use ::tokenizers::models::bpe::{BPE, Merges, Vocab};
use ::tokenizers::normalizers::replace::{Replace, ReplacePattern};
use ::tokenizers::normalizers::{Lowercase, NFC, NormalizerWrapper, Sequence};
use ::tokenizers::pre_tokenizers::PreTokenizerWrapper;
use ::tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use ::tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use ::tokenizers::processors::roberta::RobertaProcessing;
use ::tokenizers::{SplitDelimiterBehavior, Tokenizer as Inner};
use serde_json::Value;

use super::added::SpecialTokens;
use super::{MAX_TOKENIZER_BYTES, Tokenizer};
use crate::error::{Error, Result, shorten};
use crate::source::ModelSource;

/// What the class gives when no file names its special tokens.
const DEFAULTS: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
];

/// What becomes a word: special tokens, contractions, runs of letters, single digits, runs of anything else.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The tokenizer in the folder `component`: from `tokenizer.json`, else from `vocab.json` and `merges.txt`.
pub(super) fn read(source: &ModelSource, component: &str) -> Result<Tokenizer> {
    let path = format!("{component}/tokenizer.json");
    let (json, vocab, merges) = if source.exists(&path) {
        let json = read_json(source, &path)?;
        let bad = |reason: &str| Error::bad_file(source.shown(&path), reason);
        let vocab =
            vocab(&json["model"]["vocab"]).ok_or_else(|| bad("`model.vocab` is no vocabulary"))?;
        let merges = merges(&json["model"]["merges"])
            .ok_or_else(|| bad("`model.merges` is no list of pairs"))?;
        (Some(json), vocab, merges)
    } else {
        let path = format!("{component}/vocab.json");
        let bad = Error::bad_file(source.shown(&path), "not an object of tokens and ids");
        let vocab = vocab(&read_json(source, &path)?).ok_or(bad)?;
        (
            None,
            vocab,
            read_merges(source, &format!("{component}/merges.txt"))?,
        )
    };
    let special = SpecialTokens::read(source, component, &DEFAULTS, json.as_ref())?;
    let inner = build(vocab, merges, &special)
        .map_err(|reason| Error::bad_file(source.shown(component), reason))?;
    Tokenizer::finish(inner, &special, source, component)
}

fn build(vocab: Vocab, merges: Merges, special: &SpecialTokens) -> Result<Inner, String> {
    let id = |name: &str| {
        let token = special.content(name).unwrap_or_default();
        let id = vocab
            .get(token)
            .ok_or_else(|| format!("{name} `{}` is not in the vocabulary", shorten(token)))?;
        Ok::<_, String>((token.to_owned(), *id))
    };
    let (bos, eos) = (id("bos_token")?, id("eos_token")?);
    let text = |error: Box<dyn std::error::Error + Send + Sync>| shorten(&error.to_string());
    let mut model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .end_of_word_suffix("</w>".into())
        .fuse_unk(false);
    if let Some(unk) = special.content("unk_token") {
        model = model.unk_token(unk.to_owned());
    }
    let mut inner = Inner::new(model.build().map_err(text)?);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(text)?;
    let normalizers: Vec<NormalizerWrapper> = vec![NFC.into(), spaces.into(), Lowercase.into()];
    inner
        .with_normalizer(Some(Sequence::new(normalizers)))
        .map_err(text)?;
    let words = Split::new(
        SplitPattern::Regex(WORDS.into()),
        SplitDelimiterBehavior::Removed,
        true,
    )
    .map_err(text)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let pre_tokenizers: Vec<PreTokenizerWrapper> = vec![words.into(), bytes.into()];
    inner.with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers)));
    inner.with_post_processor(Some(
        RobertaProcessing::new(eos, bos)
            .trim_offsets(false)
            .add_prefix_space(false),
    ));
    inner.with_decoder(Some(ByteLevel::default()));
    Ok(inner)
}

/// The JSON in a tokenizer file.
pub(super) fn read_json(source: &ModelSource, path: &str) -> Result<Value> {
    let bytes = source.read(path, MAX_TOKENIZER_BYTES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::bad_file(source.shown(path), format!("not valid JSON: {error}")))
}

/// A vocabulary: an object of tokens and ids, or a list in the order of ids.
pub(super) fn vocab(json: &Value) -> Option<Vocab> {
    match json {
        Value::Object(map) => map
            .iter()
            .map(|(token, id)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?)))
            .collect(),
        Value::Array(list) => (0..)
            .zip(list)
            .map(|(id, token)| Some((token.as_str().or_else(|| token[0].as_str())?.to_owned(), id)))
            .collect(),
        _ => None,
    }
}

/// Merges: pairs, or two tokens with a space between.
fn merges(json: &Value) -> Option<Merges> {
    json.as_array()?
        .iter()
        .map(|merge| match merge {
            Value::String(text) => pair(text),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn read_merges(source: &ModelSource, path: &str) -> Result<Merges> {
    let bytes = source.read(path, MAX_TOKENIZER_BYTES)?;
    let bad = |reason: String| Error::bad_file(source.shown(path), reason);
    let text = std::str::from_utf8(&bytes).map_err(|error| bad(format!("not UTF-8: {error}")))?;
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    lines
        .map(|(number, line)| {
            pair(line).ok_or_else(|| {
                bad(format!(
                    "line {number} is not two tokens: `{}`",
                    shorten(line)
                ))
            })
        })
        .collect()
}

fn pair(text: &str) -> Option<(String, String)> {
    let (left, right) = text.split_once(' ')?;
    (!right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
}
