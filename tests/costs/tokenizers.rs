//! The costs of tokenizers: memory of at most eight times their files, and time in proportion to these.

use std::fmt::Write as _;
use std::time::Instant;

use xdit_models::ModelSource;
use xdit_models::text::tokenizers::Tokenizer;
use xdit_tests::attack::Rng;

use crate::{ALLOCATED, alone};

/// A piece as vocabularies have them: a few letters, some of several bytes.
fn piece(rng: &mut Rng) -> String {
    const LETTERS: [char; 30] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r',
        's', 't', 'u', 'v', 'w', 'x', 'é', 'ж', 'ش', '猫', '画', '▁',
    ];
    (0..4 + rng.below(6)).map(|_| *rng.pick(&LETTERS)).collect()
}

/// A SentencePiece model of `pieces` pieces.
fn spiece(pieces: usize) -> Vec<u8> {
    let mut rng = Rng::new(1);
    let mut file = Vec::new();
    for i in 0..pieces {
        let text = match i {
            0 => "<pad>".into(),
            1 => "</s>".into(),
            2 => "<unk>".into(),
            _ => piece(&mut rng),
        };
        let score = (-(i as f32) / 1e4).to_le_bytes();
        let message = [&[0x0a, text.len() as u8], text.as_bytes(), &[0x15], &score].concat();
        file.extend([&[0x0a, message.len() as u8], &message[..]].concat());
    }
    file
}

/// A `tokenizer.json` of a T5 with `pieces` pieces.
fn unigram(pieces: usize) -> Vec<u8> {
    let mut rng = Rng::new(2);
    let mut vocab = String::from(r#"["<pad>",0],["</s>",0],["<unk>",0]"#);
    for i in 3..pieces {
        write!(
            vocab,
            r#",["{}",-{}.{}]"#,
            piece(&mut rng),
            i / 20_000,
            i % 10_000
        )
        .expect("text");
    }
    format!(r#"{{"normalizer":null,"added_tokens":[],"model":{{"type":"Unigram","unk_id":2,"vocab":[{vocab}]}}}}"#)
        .into_bytes()
}

/// `vocab.json` and `merges.txt` of a CLIP with about `pieces` pieces.
fn clip(pieces: usize) -> [Vec<u8>; 2] {
    let mut rng = Rng::new(3);
    let mut known: Vec<String> = ('a'..='z')
        .flat_map(|c| [c.to_string(), format!("{c}</w>")])
        .collect();
    let mut seen: std::collections::HashSet<String> = known.iter().cloned().collect();
    let mut merges = String::from("#version: 0.2\n");
    while known.len() < pieces {
        let (left, right) = (rng.pick(&known).clone(), rng.pick(&known).clone());
        let joined = format!("{left}{right}");
        if !left.contains('<') && joined.len() < 16 && seen.insert(joined.clone()) {
            writeln!(merges, "{left} {right}").expect("text");
            known.push(joined);
        }
    }
    known.extend(["<|startoftext|>".into(), "<|endoftext|>".into()]);
    let vocab: Vec<String> = known
        .iter()
        .enumerate()
        .map(|(id, piece)| format!("\"{piece}\":{id}"))
        .collect();
    [
        format!("{{{}}}", vocab.join(",")).into_bytes(),
        merges.into_bytes(),
    ]
}

/// A `tokenizer.json` of a few words and `tokens` added tokens.
fn added(tokens: usize) -> Vec<u8> {
    let token = |i: usize| {
        format!(
            r#"{{"id":{},"content":"<image_{i}>","single_word":false,"lstrip":false,"rstrip":false,"normalized":{},"special":true}}"#,
            i + 2,
            i.is_multiple_of(2)
        )
    };
    let tokens: Vec<String> = (0..tokens).map(token).collect();
    format!(
        r#"{{"normalizer":{{"type":"Lowercase"}},"added_tokens":[{}],"padding":{{"pad_token":"a"}},
        "model":{{"type":"WordLevel","unk_token":"?","vocab":{{"?":0,"a":1}}}}}}"#,
        tokens.join(",")
    )
    .into_bytes()
}

/// Reads the tokenizer of `files` and a long prompt: what it took, or the error.
fn cost(name: &str, class: &str, files: Vec<(&str, Vec<u8>)>) -> Result<f64, String> {
    let bytes: usize = files.iter().map(|(_, file)| file.len()).sum();
    let source = ModelSource::memory(
        files
            .into_iter()
            .map(|(file, bytes)| (format!("t/{file}"), bytes)),
    );
    let prompt = "a red circle on a blue background, 猫 <image_7> ".repeat(400);
    let (before, start) = (ALLOCATED.current_usage(), Instant::now());
    ALLOCATED.reset_peak_usage();
    let read = Tokenizer::read(&source, "t", class).map_err(|error| error.to_string());
    let times = (ALLOCATED.peak_usage() - before) as f64 / bytes as f64;
    let read_in = start.elapsed();
    let encoded = read.map(|tokenizer| tokenizer.encode(&prompt, 77).expect("a long prompt").len);
    println!(
        "{name}: {bytes} bytes, {times:.1} times that, read in {read_in:?}, all in {:?}: {encoded:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed().as_secs() < 60,
        "{name}: {:?}",
        start.elapsed()
    );
    encoded.map(|_| times)
}

#[test]
fn a_tokenizer_costs_a_few_times_its_files() {
    let _turn = alone();
    // As many as mT5 has; the file itself, where it lies on a disk, is one of the eight.
    for (name, class, files) in [
        (
            "spiece.model of mT5's size",
            "T5Tokenizer",
            vec![("spiece.model", spiece(250_112))],
        ),
        (
            "tokenizer.json of mT5's size",
            "T5Tokenizer",
            vec![("tokenizer.json", unigram(250_112))],
        ),
        (
            "tokenizer.json of a million pieces",
            "T5Tokenizer",
            vec![("tokenizer.json", unigram(999_900))],
        ),
        (
            "the same as it is",
            "TokenizersBackend",
            vec![
                ("tokenizer.json", unigram(250_112)),
                (
                    "special_tokens_map.json",
                    br#"{"pad_token":"<pad>"}"#.to_vec(),
                ),
            ],
        ),
        (
            "vocab.json and merges.txt of CLIP's size",
            "CLIPTokenizer",
            {
                let [vocab, merges] = clip(49_000);
                vec![("vocab.json", vocab), ("merges.txt", merges)]
            },
        ),
        (
            "100,000 added tokens",
            "TokenizersBackend",
            vec![("tokenizer.json", added(100_000))],
        ),
    ] {
        let times = cost(name, class, files).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(times <= 7.0, "{name}: {times:.1} times its files");
    }
    for (name, class, files) in [
        (
            "spiece.model of 2.7 million pieces",
            "T5Tokenizer",
            vec![("spiece.model", spiece(2_700_000))],
        ),
        (
            "tokenizer.json of 1.1 million pieces",
            "T5Tokenizer",
            vec![("tokenizer.json", unigram(1_100_000))],
        ),
        (
            "200,000 added tokens",
            "TokenizersBackend",
            vec![("tokenizer.json", added(200_000))],
        ),
    ] {
        let error = cost(name, class, files).expect_err(name);
        assert!(
            error.contains("more than 1000000 pieces")
                || error.contains("more than 131072 added tokens"),
            "{error}"
        );
    }
}
