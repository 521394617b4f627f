//! Compares the models with those of the tokenizers library: the same ids for any vocabulary and word.

use ::tokenizers::models::{bpe, unigram, wordpiece};
use ::tokenizers::{Model as _, Token};
use proptest::prelude::*;

use super::bpe::{Bpe, BpeOptions};
use super::limits::Effort;
use super::unigram::Unigram;
use super::vocabulary::{Entries, Vocabulary};
use super::wordpiece::WordPiece;

fn ids(tokens: ::tokenizers::Result<Vec<Token>>) -> Result<Vec<u32>, String> {
    let tokens = tokens.map_err(|error| error.to_string())?;
    Ok(tokens.into_iter().map(|token| token.id).collect())
}

fn ours(encode: impl FnOnce(&mut Vec<u32>) -> Result<(), String>) -> Result<Vec<u32>, String> {
    let mut ids = Vec::new();
    encode(&mut ids).map(|()| ids)
}

fn piece() -> impl Strategy<Value = String> {
    "[abé猫]{1,4}"
}

proptest! {
    #[test]
    fn unigram(
        pieces in prop::collection::vec((piece(), -9.0..3.0), 1..30),
        unk in 0_usize..40,
        fallback: bool,
        word in "[abéx猫]{0,40}",
    ) {
        let mut pieces = pieces;
        pieces.push(("<0x78>".into(), -1.0));
        let unk = Some(unk).filter(|unk| *unk < pieces.len());
        let mut entries = Entries::default();
        for (piece, score) in &pieces {
            entries.push(piece, None, Some(*score)).unwrap();
        }
        let model = Unigram::new(Vocabulary::new(entries), unk, fallback).unwrap();
        let theirs = unigram::Unigram::from(pieces, unk, fallback).unwrap();
        let theirs = ids(theirs.tokenize(&word));
        let ours = ours(|ids| model.encode(&word, ids, &Effort::new(word.len())));
        prop_assert_eq!(ours.is_err(), theirs.is_err());
        prop_assert_eq!(ours.ok(), theirs.ok());
    }

    #[test]
    fn bpe(
        joins in prop::collection::vec((0_usize..40, 0_usize..40), 0..40),
        known in "[abé猫]{0,4}",
        unk: bool,
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        suffix: bool,
        word in "[abéx猫]{0,40}",
    ) {
        let end = if suffix { "</w>" } else { "" };
        let mut pieces: Vec<String> = vec!["<unk>".into(), "<0x78>".into()];
        pieces.extend(known.chars().flat_map(|c| [c.to_string(), format!("{c}{end}")]));
        pieces.sort();
        pieces.dedup();
        let mut merges = Vec::new();
        for (left, right) in joins {
            let (left, right) = (&pieces[left % pieces.len()], &pieces[right % pieces.len()]);
            if suffix && left.ends_with("</w>") {
                continue;
            }
            let joined = format!("{left}{right}");
            merges.push((left.clone(), right.clone()));
            if !pieces.contains(&joined) {
                pieces.push(joined);
            }
        }
        let vocab: Vec<(String, u32)> = pieces.into_iter().zip(5..).collect();
        let mut entries = Entries::default();
        for (piece, id) in &vocab {
            entries.push(piece, Some(*id), None).unwrap();
        }
        let options = BpeOptions {
            unk_token: unk.then(|| "<unk>".into()),
            end_of_word_suffix: suffix.then(|| end.into()),
            fuse_unk,
            byte_fallback,
            ignore_merges,
            ..BpeOptions::default()
        };
        let model = Bpe::new(Vocabulary::new(entries), options, |list| {
            merges.iter().try_for_each(|(left, right)| list.push(left, right))
        });
        let mut theirs = bpe::BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<bpe::Vocab>(), merges.clone())
            .fuse_unk(fuse_unk)
            .byte_fallback(byte_fallback)
            .ignore_merges(ignore_merges);
        if unk {
            theirs = theirs.unk_token("<unk>".into());
        }
        if suffix {
            theirs = theirs.end_of_word_suffix(end.into());
        }
        let theirs = theirs.build().unwrap();
        let ours = ours(|ids| model.unwrap().encode(&word, ids));
        prop_assert_eq!(ours, ids(theirs.tokenize(&word)));
    }

    #[test]
    fn word_piece(
        pieces in prop::collection::vec((prop::bool::ANY, piece()), 0..30),
        prefix in prop::sample::select(vec!["##", "", "a"]),
        longest_word in 0_usize..30,
        word in "[abéx猫]{0,20}",
    ) {
        let marked = pieces.into_iter().map(|(inner, piece)| if inner { format!("{prefix}{piece}") } else { piece });
        let vocab: Vec<(String, u32)> = marked.chain(["[UNK]".into()]).zip(0..).collect();
        let mut entries = Entries::default();
        for (piece, id) in &vocab {
            entries.push(piece, Some(*id), None).unwrap();
        }
        let model = WordPiece {
            vocabulary: Vocabulary::new(entries),
            unk_token: "[UNK]".into(),
            prefix: prefix.into(),
            longest_word,
        };
        let theirs = wordpiece::WordPiece::builder()
            .vocab(vocab.into_iter().collect::<bpe::Vocab>())
            .continuing_subword_prefix(prefix.into())
            .max_input_chars_per_word(longest_word)
            .build()
            .unwrap();
        let ours = ours(|ids| model.encode(&word, ids, &Effort::new(word.len())));
        prop_assert_eq!(ours, ids(theirs.tokenize(&word)));
    }
}
