use super::*;

fn config(json: &str) -> ConfigFile {
    ConfigFile::parse("c.json", json.as_bytes()).unwrap()
}

#[test]
fn absent_takes_the_default_and_null_does_not() {
    assert_eq!(config("{}").count("n", Some(3), 1..=9).unwrap(), 3);
    assert!(config(r#"{"n": null}"#).count("n", Some(3), 1..=9).is_err());
    assert_eq!(
        config(r#"{"n": null}"#).optional_count("n", 1..=9).unwrap(),
        None
    );
    assert!(config("{}").count("n", None, 1..=9).is_err());
}

#[test]
fn wrong_kinds_and_ranges_are_named() {
    for json in [
        "0",
        "10",
        "-1",
        "1.5",
        "1e30",
        "\"3\"",
        "[3]",
        "true",
        "123456789012345678901234567890",
    ] {
        let error = config(&format!(r#"{{"n": {json}}}"#))
            .count("n", Some(3), 1..=9)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("c.json: `n` must be a whole number from 1 to 9, found "),
            "{error}"
        );
    }
    assert!(
        config(r#"{"x": "inf"}"#)
            .number("x", 0.0, 0.0..=1.0)
            .is_err()
    );
    assert!(config(r#"{"b": 1}"#).flag("b", true).is_err());
    assert!(
        config(r#"{"l": [1, 2, "3"]}"#)
            .counts("l", &[], 1..=3, 0..=9)
            .is_err()
    );
    assert!(
        config(r#"{"l": [1, 2, 3, 4]}"#)
            .counts("l", &[], 1..=3, 0..=9)
            .is_err()
    );
}

#[test]
fn broken_json_is_one_line() {
    for bytes in [
        &b"{"[..],
        b"[]",
        b"",
        b"\xff\xfe",
        b"{\"a\": NaN}",
        &[b'['; 100_000],
    ] {
        let error = ConfigFile::parse("c.json", bytes).unwrap_err().to_string();
        assert!(
            error.starts_with("c.json: ") && !error.contains('\n'),
            "{error}"
        );
    }
    assert!(ConfigFile::parse("c.json", &vec![b' '; MAX_CONFIG_BYTES + 1]).is_err());
}

#[test]
fn classes_are_checked_in_both_spellings() {
    assert!(
        config(r#"{"_class_name": "AutoencoderKL"}"#)
            .expect_class(&["AutoencoderKL"])
            .is_ok()
    );
    assert!(
        config(r#"{"architectures": ["CLIPTextModel"]}"#)
            .expect_class(&["CLIPTextModel"])
            .is_ok()
    );
    let error = config(r#"{"_class_name": "DDIMScheduler"}"#)
        .expect_class(&["A", "B"])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "c.json: `_class_name` \"DDIMScheduler\" is not supported; supported: A, B"
    );
}
