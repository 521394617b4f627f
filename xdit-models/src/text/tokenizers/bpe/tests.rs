use super::*;
use crate::text::tokenizers::vocabulary::Entries;

fn model(vocabulary: &str, merges: &str, options: BpeOptions) -> Result<Bpe, String> {
    let vocabulary = Vocabulary::new(Entries::of_json(vocabulary).unwrap());
    Bpe::new(vocabulary, options, |list| list.push_json(merges))
}

fn ids(model: &Bpe, word: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    model.encode(word, &mut ids).unwrap();
    ids
}

#[test]
fn merges_are_done_in_their_order() {
    // The cases of the tokenizers library's own tests.
    let model = model(
        r#"{"u":0,"n":1,"r":2,"e":3,"l":4,"a":5,"t":6,"d":7,"re":8,"at":9,"ed":10,"un":11,"ated":12,"rel":13,"related":14,"unrelated":15}"#,
        r#"[["r","e"],["a","t"],"e d",["u","n"],["at","ed"],["re","l"],["rel","ated"],["un","related"]]"#,
        BpeOptions::default(),
    )
    .unwrap();
    assert_eq!(ids(&model, "unrelated"), [15]);
    assert_eq!(ids(&model, "related"), [14]);
    assert_eq!(ids(&model, "unated"), [11, 12]);
    assert!(ids(&model, "").is_empty());
}

#[test]
fn unknown_characters_are_fused_or_bytes_or_left_out() {
    let vocabulary = r#"{"<unk>":0,"a":1,"b":2,"<0x63>":3}"#;
    let with = |fuse_unk, byte_fallback, unk: Option<&str>| {
        let options = BpeOptions {
            unk_token: unk.map(str::to_owned),
            fuse_unk,
            byte_fallback,
            ..BpeOptions::default()
        };
        ids(&model(vocabulary, "[]", options).unwrap(), "accb")
    };
    assert_eq!(with(false, false, Some("<unk>")), [1, 0, 0, 2]);
    assert_eq!(with(true, false, Some("<unk>")), [1, 0, 2]);
    assert_eq!(with(true, true, Some("<unk>")), [1, 3, 3, 2]);
    assert_eq!(with(false, false, None), [1, 2]);
}

#[test]
fn prefixes_and_suffixes_are_written_on_the_pieces() {
    let options = BpeOptions {
        continuing_subword_prefix: Some("##".into()),
        end_of_word_suffix: Some("</w>".into()),
        ..BpeOptions::default()
    };
    let model = model(
        r###"{"a":0,"##b":1,"##c</w>":2,"a</w>":3,"ab":4,"abc</w>":5}"###,
        r###"[["a","##b"],["ab","##c</w>"]]"###,
        options,
    )
    .unwrap();
    assert_eq!(ids(&model, "abc"), [5]);
    assert_eq!(ids(&model, "a"), [3]);
}

#[test]
fn merges_outside_the_vocabulary_are_refused() {
    for (merges, part) in [
        (r#"[["a","x"]]"#, "`x` is not in the vocabulary"),
        (r#"[["a","a"]]"#, "`aa` is not in the vocabulary"),
        (r#"["a b c"]"#, "is not two tokens"),
        (r#"[["a"]]"#, "without two tokens"),
        ("[3]", "invalid type"),
    ] {
        let error = model(r#"{"a":0,"b":1}"#, merges, BpeOptions::default()).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let options = BpeOptions {
        continuing_subword_prefix: Some("####".into()),
        ..BpeOptions::default()
    };
    assert!(model(r#"{"a":0,"b":1}"#, r#"[["a","b"]]"#, options).is_err());
}

#[test]
fn a_word_without_end_is_merged_in_time() {
    let mut vocabulary = String::from(r#"{"a":0"#);
    let mut merges = Vec::new();
    for n in 0..9 {
        let half = "a".repeat(1 << n);
        vocabulary += &format!(r#","{half}{half}":{}"#, n + 1);
        merges.push(format!(r#"["{half}","{half}"]"#));
    }
    let merges = format!("[{}]", merges.join(","));
    let model = model(&(vocabulary + "}"), &merges, BpeOptions::default()).unwrap();
    let start = std::time::Instant::now();
    assert_eq!(ids(&model, &"a".repeat(1 << 20)).len(), 1 << 11);
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}
