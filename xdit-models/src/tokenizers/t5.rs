//! `T5Tokenizer`: a unigram model over words that begin with `▁` (transformers `models/t5/tokenization_t5.py`).

use ::tokenizers::models::unigram::Unigram;
use ::tokenizers::normalizers::Precompiled;
use ::tokenizers::pre_tokenizers::PreTokenizerWrapper;
use ::tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use ::tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use ::tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use ::tokenizers::processors::template::TemplateProcessing;
use ::tokenizers::{AddedToken, Tokenizer as Inner};
use serde_json::Value;

use super::added::SpecialTokens;
use super::clip::read_json;
use super::spiece::SentencePiece;
use super::{MAX_TOKENIZER_BYTES, Tokenizer, charsmap};
use crate::error::{Error, Result, shorten};
use crate::source::ModelSource;

/// What the class gives when no file names its special tokens.
const DEFAULTS: [(&str, &str); 3] = [
    ("eos_token", "</s>"),
    ("pad_token", "<pad>"),
    ("unk_token", "<unk>"),
];
/// The class counts on `<pad>`, `</s>`, `<unk>` being the first three pieces.
const UNK_ID: usize = 2;

/// The tokenizer in the folder `component`: from `tokenizer.json`, else from `spiece.model`.
pub(super) fn read(source: &ModelSource, component: &str) -> Result<Tokenizer> {
    let path = format!("{component}/tokenizer.json");
    if source.exists(&path) {
        let json = read_json(source, &path)?;
        let bad = |reason: String| Error::bad_file(source.shown(&path), reason);
        let pieces = pieces(&json["model"]["vocab"])
            .ok_or_else(|| bad("`model.vocab` is no list of pieces and scores".into()))?;
        let charsmap = charsmap::of_normalizer(&json["normalizer"]).map_err(bad)?;
        let mut special = SpecialTokens::read(source, component, &DEFAULTS, Some(&json))?;
        special.default_sentinels(Vec::new());
        return finish(source, component, pieces, charsmap, &special);
    }
    let path = format!("{component}/spiece.model");
    let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
    let model = SentencePiece::parse(&bytes)
        .map_err(|reason| Error::bad_file(source.shown(&path), reason))?;
    let mut special = SpecialTokens::read(source, component, &DEFAULTS, None)?;
    let symbols = model
        .symbols()
        .map(|(piece, control)| AddedToken::from(piece, control).normalized(false));
    special.default_sentinels(symbols.collect());
    let charsmap = Some(model.charsmap).filter(|map| !map.is_empty());
    if let Some(map) = &charsmap {
        charsmap::check(map).map_err(|reason| Error::bad_file(source.shown(&path), reason))?;
    }
    let pieces = model
        .pieces
        .into_iter()
        .map(|piece| (piece.text, f64::from(piece.score)));
    // The model file ends before the sentinels, which count down.
    let sentinels = (0..special.extra_ids())
        .rev()
        .map(|i| (format!("<extra_id_{i}>"), 0.0));
    let pieces = pieces.chain(sentinels).collect();
    finish(source, component, pieces, charsmap, &special)
}

fn finish(
    source: &ModelSource,
    component: &str,
    pieces: Vec<(String, f64)>,
    charsmap: Option<Vec<u8>>,
    special: &SpecialTokens,
) -> Result<Tokenizer> {
    let bad = |reason: String| Error::bad_file(source.shown(component), reason);
    let eos = special.content("eos_token").unwrap_or_default().to_owned();
    let inner = build(pieces, charsmap).map_err(bad)?;
    let mut tokenizer = Tokenizer::finish(inner, special, source, component)?;
    let eos_id = tokenizer
        .inner
        .token_to_id(&eos)
        .ok_or_else(|| bad(format!("eos_token `{}` has no id", shorten(&eos))))?;
    let template = TemplateProcessing::builder()
        .try_single("$A </s>")
        .and_then(|template| template.try_pair("$A </s> $B </s>"))
        .map_err(|error| bad(error.to_string()))?
        .special_tokens(vec![("</s>", eos_id)])
        .build()
        .map_err(|error| bad(error.to_string()))?;
    tokenizer.inner.with_post_processor(Some(template));
    Ok(tokenizer)
}

fn build(pieces: Vec<(String, f64)>, charsmap: Option<Vec<u8>>) -> Result<Inner, String> {
    if let Some((piece, score)) = pieces
        .iter()
        .find(|(piece, score)| piece.is_empty() || !score.is_finite())
    {
        return Err(format!("piece `{}` with score {score}", shorten(piece)));
    }
    let text = |error: Box<dyn std::error::Error + Send + Sync>| shorten(&error.to_string());
    let mut inner = Inner::new(Unigram::from(pieces, Some(UNK_ID), false).map_err(text)?);
    if let Some(map) = charsmap {
        let map = Precompiled::from(&map).map_err(|error| error.to_string())?;
        inner.with_normalizer(Some(map)).map_err(text)?;
    }
    let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
    let pre_tokenizers: Vec<PreTokenizerWrapper> =
        vec![WhitespaceSplit.into(), metaspace.clone().into()];
    inner.with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers)));
    inner.with_decoder(Some(metaspace));
    Ok(inner)
}

/// A unigram vocabulary: a list of pairs of piece and score.
fn pieces(json: &Value) -> Option<Vec<(String, f64)>> {
    json.as_array()?
        .iter()
        .map(|pair| match pair.as_array()?.as_slice() {
            [Value::String(piece), score] => Some((piece.clone(), score.as_f64()?)),
            _ => None,
        })
        .collect()
}
