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
        b"{\"a\": NaNs}",
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
fn numbers_that_only_python_reads_are_refused_by_name() {
    let file = config(
        r#"{"a": NaN, "b": [Infinity], "c": -Infinity, "d": 1e999, "e": "NaN\\", "f": -1E400, "g": {"h": NaN}, "n": 1e-5}"#,
    );
    for field in ["a", "c", "d", "f"] {
        let error = file.number(field, 0.0, -1e300..=1e300).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("c.json: `{field}` must be a number")),
            "{error}"
        );
    }
    assert!(file.optional_numbers("b", 9).is_err());
    assert_eq!(file.text("c", None).unwrap(), "-Infinity");
    assert_eq!(file.text("e", None).unwrap(), "NaN\\");
    assert_eq!(file.number("n", 0.0, 0.0..=1.0).unwrap(), 1e-5);
}
