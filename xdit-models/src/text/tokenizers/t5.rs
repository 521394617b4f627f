//! `T5Tokenizer`: a unigram model over words that begin with `▁` (transformers `models/t5/tokenization_t5.py`).

use ::tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use ::tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

use super::added::SpecialTokens;
use super::charsmap;
use super::engine::{Engine, TokenModel};
use super::limits::MAX_TOKENIZER_BYTES;
use super::spiece::SentencePiece;
use super::steps::{Decoder, Normalize, Normalizer, PreTokenize, PreTokenizer};
use super::tokenizer::Tokenizer;
use super::unigram::Unigram;
use super::vocabulary::{Entries, Vocabulary};
use super::whole::Parts;
use crate::error::{Error, Result, shorten};
use crate::files::source::ModelSource;

/// The default special tokens of the class.
const DEFAULTS: [(&str, &str); 3] = [
    ("eos_token", "</s>"),
    ("pad_token", "<pad>"),
    ("unk_token", "<unk>"),
];
/// The class requires that `<pad>`, `</s>`, `<unk>` are the first three pieces.
const UNK_ID: usize = 2;

/// Reads the tokenizer in the folder `component`, from `tokenizer.json`, or else from `spiece.model`.
pub(super) fn read(source: &ModelSource, component: &str) -> Result<Tokenizer> {
    let path = format!("{component}/tokenizer.json");
    let shown = source.shown(&path);
    if source.exists(&path) {
        let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
        let bad = |reason: String| Error::bad_file(&shown, reason);
        let parts = Parts::of(&bytes, &shown)?;
        let [vocab] = parts.model(&shown, ["vocab"])?;
        let none = "`model.vocab` is no list of pieces and scores";
        let pieces = Entries::of_json(vocab.ok_or_else(|| bad(none.into()))?)
            .map_err(|error| bad(format!("{none}: {error}")))?;
        let charsmap = parts
            .normalizer()
            .and_then(|map| charsmap::of_normalizer(&map));
        let charsmap = charsmap.map_err(bad)?;
        let listed = parts.listed().map_err(bad)?;
        let mut special = SpecialTokens::read(source, component, &DEFAULTS, Some(&listed))?;
        special.default_sentinels(Vec::new());
        return finish(source, component, pieces, charsmap, &special);
    }
    let path = format!("{component}/spiece.model");
    let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
    let bad = |reason: String| Error::bad_file(source.shown(&path), reason);
    let mut model = SentencePiece::parse(&bytes).map_err(bad)?;
    let mut special = SpecialTokens::read(source, component, &DEFAULTS, None)?;
    special.default_sentinels(std::mem::take(&mut model.symbols));
    let charsmap = Some(model.charsmap).filter(|map| !map.is_empty());
    if let Some(map) = &charsmap {
        charsmap::check(map).map_err(bad)?;
    }
    // The model file does not contain the sentinels, which count down.
    let mut pieces = model.pieces;
    for i in (0..special.extra_ids()).rev() {
        pieces
            .push(&format!("<extra_id_{i}>"), None, Some(0.0))
            .map_err(bad)?;
    }
    finish(source, component, pieces, charsmap, &special)
}

fn finish(
    source: &ModelSource,
    component: &str,
    pieces: Entries,
    charsmap: Option<Vec<u8>>,
    special: &SpecialTokens,
) -> Result<Tokenizer> {
    let bad = |reason: String| Error::bad_file(source.shown(component), reason);
    let mut engine = build(pieces, charsmap).map_err(bad)?;
    engine.add(special.to_add(&engine.added)).map_err(bad)?;
    let eos = special.content("eos_token").unwrap_or_default();
    let eos = engine
        .id(eos)
        .ok_or_else(|| bad(format!("eos_token `{}` has no id", shorten(eos))))?;
    engine.template.after = vec![eos];
    Tokenizer::finish(engine, special, source, component, source.shown(component))
}

fn build(pieces: Entries, charsmap: Option<Vec<u8>>) -> std::result::Result<Engine, String> {
    if let Some((piece, score)) = pieces
        .scored()
        .find(|(piece, score)| piece.is_empty() || !score.is_finite())
    {
        return Err(format!("piece `{}` with score {score}", shorten(piece)));
    }
    let model = Unigram::new(Vocabulary::new(pieces), Some(UNK_ID), false)?;
    let mut engine = Engine::new(TokenModel::Unigram(model))?;
    if let Some(map) = charsmap {
        engine.normalizer =
            Normalizer::new(vec![Normalize::Charsmap(charsmap::precompiled(&map)?)]);
    }
    let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
    engine.pre_tokenizer = PreTokenizer::new(vec![
        PreTokenize::Leaf(WhitespaceSplit.into()),
        PreTokenize::Leaf(metaspace.clone().into()),
    ]);
    engine.decoder = Decoder::new(metaspace);
    Ok(engine)
}
