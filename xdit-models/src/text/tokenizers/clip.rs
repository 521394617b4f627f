//! `CLIPTokenizer`: byte-level BPE over lower-cased words (transformers `models/clip/tokenization_clip.py`).

use ::tokenizers::SplitDelimiterBehavior;
use ::tokenizers::decoders::byte_level::ByteLevel;
use ::tokenizers::normalizers::{Lowercase, NFC};

use super::added::SpecialTokens;
use super::bpe::{self, Bpe, Merges};
use super::engine::{Engine, TokenModel};
use super::json::checked;
use super::limits::MAX_TOKENIZER_BYTES;
use super::search::Search;
use super::steps::{Decoder, Normalize, Normalizer, PreTokenize, PreTokenizer};
use super::template::Template;
use super::tokenizer::Tokenizer;
use super::vocabulary::{Entries, Vocabulary};
use super::whole::Parts;
use crate::error::{Error, Result, shorten};
use crate::files::source::ModelSource;

/// The default special tokens of the class.
const DEFAULTS: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
];

/// The pattern of a word: special tokens, contractions, runs of letters, single digits, runs of other characters.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Reads the tokenizer in the folder `component`, from `tokenizer.json`, or else from `vocab.json` and `merges.txt`.
pub(super) fn read(source: &ModelSource, component: &str) -> Result<Tokenizer> {
    let path = format!("{component}/tokenizer.json");
    let shown = source.shown(&path);
    if source.exists(&path) {
        let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
        let bad = |reason: String| Error::bad_file(&shown, reason);
        let parts = Parts::of(&bytes, &shown)?;
        let [vocab, merges] = parts.model(&shown, ["vocab", "merges"])?;
        let vocab = vocab.ok_or("none".to_string()).and_then(Entries::of_json);
        let vocab =
            vocab.map_err(|error| bad(format!("`model.vocab` is no vocabulary: {error}")))?;
        let merges = merges.ok_or_else(|| bad("`model.merges` is no list of pairs".into()))?;
        let special = SpecialTokens::read(
            source,
            component,
            &DEFAULTS,
            Some(&parts.listed().map_err(bad)?),
        )?;
        return build(source, component, vocab, &special, |list| {
            list.push_json(merges)
                .map_err(|error| bad(format!("`model.merges`: {error}")))
        });
    }
    let path = format!("{component}/vocab.json");
    let bytes = source.read(&path, MAX_TOKENIZER_BYTES)?;
    let bad = |reason: String| Error::bad_file(source.shown(&path), reason);
    let vocab = Entries::of_json(checked(&bytes).map_err(bad)?)
        .map_err(|error| bad(format!("not an object of tokens and ids: {error}")))?;
    let special = SpecialTokens::read(source, component, &DEFAULTS, None)?;
    build(source, component, vocab, &special, |list| {
        read_merges(source, &format!("{component}/merges.txt"), list)
    })
}

fn build(
    source: &ModelSource,
    component: &str,
    vocab: Entries,
    special: &SpecialTokens,
    merges: impl FnOnce(&mut Merges<'_>) -> Result<()>,
) -> Result<Tokenizer> {
    let shown = source.shown(component);
    let bad = |reason: String| Error::bad_file(&shown, reason);
    let vocabulary = Vocabulary::new(vocab);
    let id = |name: &str| {
        let token = special.content(name).unwrap_or_default();
        vocabulary.id(token).ok_or_else(|| {
            bad(format!(
                "{name} `{}` is not in the vocabulary",
                shorten(token)
            ))
        })
    };
    let (bos, eos) = (id("bos_token")?, id("eos_token")?);
    let options = bpe::BpeOptions {
        unk_token: special.content("unk_token").map(str::to_owned),
        end_of_word_suffix: Some("</w>".into()),
        ..bpe::BpeOptions::default()
    };
    let model = TokenModel::Bpe(Bpe::new(vocabulary, options, merges)?);
    let mut engine = Engine::new(model).map_err(bad)?;
    engine.normalizer = Normalizer::new(vec![
        Normalize::Leaf(NFC.into()),
        Normalize::Replace(Search::regex(r"\s+").map_err(bad)?, " ".into()),
        Normalize::Leaf(Lowercase.into()),
    ]);
    engine.pre_tokenizer = PreTokenizer::new(vec![
        PreTokenize::Split {
            search: Search::regex(WORDS).map_err(bad)?,
            behavior: SplitDelimiterBehavior::Removed,
            invert: true,
        },
        PreTokenize::Leaf(ByteLevel::default().add_prefix_space(false).into()),
    ]);
    engine.template = Template {
        before: vec![bos],
        after: vec![eos],
    };
    engine.decoder = Decoder::new(ByteLevel::default());
    Tokenizer::finish(engine, special, source, component, source.shown(component))
}

/// Adds the merges in the lines of the file `path` to `list`.
fn read_merges(source: &ModelSource, path: &str, list: &mut Merges<'_>) -> Result<()> {
    let bytes = source.read(path, MAX_TOKENIZER_BYTES)?;
    let bad = |reason: String| Error::bad_file(source.shown(path), reason);
    let text = std::str::from_utf8(&bytes).map_err(|error| bad(format!("not UTF-8: {error}")))?;
    list.reserve(text.len());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
        list.push_text(line)
            .map_err(|error| bad(format!("line {number}: {error}")))?;
    }
    Ok(())
}
