use super::*;

/// A file with this JSON header and `data` zero bytes after it.
fn file(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn error(json: &str, data: usize) -> String {
    Header::parse("w.safetensors", &file(json, data))
        .unwrap_err()
        .to_string()
}

#[test]
fn a_sound_header_is_read() {
    let json = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},
        "b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
        "c":{"dtype":"F16","shape":[0],"data_offsets":[28,28]}}  "#;
    let header = Header::parse("w", &file(json, 28)).unwrap();
    assert_eq!(header.tensors.len(), 3);
    let a = &header.tensors["a"];
    assert_eq!(
        (a.offset, a.len, a.dtype.dtype()),
        (8 + json.len() + 4, 24, Some(DType::F32))
    );
    assert!(
        Header::parse("w", &file("{}", 0))
            .unwrap()
            .tensors
            .is_empty()
    );
}

#[test]
fn each_fault_is_named() {
    let one = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#);
    for (json, data, part) in [
        (
            one(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#),
            7,
            "is it truncated?",
        ),
        (
            one(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#),
            9,
            "1 B after the last tensor",
        ),
        (
            one(r#""dtype":"F32","shape":[2],"data_offsets":[8,0]"#),
            8,
            "found bytes 8 to 0",
        ),
        (
            one(r#""dtype":"F32","shape":[2],"data_offsets":[1,9]"#),
            9,
            "leaves a gap before it",
        ),
        (
            one(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#),
            8,
            "8 bytes for F32 [3]",
        ),
        (
            one(r#""dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]"#),
            8,
            "below 2^64",
        ),
        (
            one(r#""dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]"#),
            4,
            "4 bytes for F32",
        ),
        (
            one(r#""dtype":"F32","shape":[-1],"data_offsets":[0,8]"#),
            8,
            "corrupt safetensors header",
        ),
        (
            one(r#""dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]"#),
            4,
            "is it truncated?",
        ),
        (
            one(
                r#""dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]"#,
            ),
            4,
            "17 dims",
        ),
        (
            one(r#""dtype":"F32","shape":[1]"#),
            4,
            "corrupt safetensors header",
        ),
        ("[]".into(), 0, "corrupt safetensors header"),
        ("{".into(), 0, "corrupt safetensors header"),
        (String::new(), 0, "corrupt safetensors header"),
    ] {
        let error = error(&json, data);
        assert!(
            error.contains(part) && !error.contains('\n'),
            "{json}: {error}"
        );
    }
}

#[test]
fn repetition_and_overlap_are_named() {
    let tensor = |name: &str, begin: u64| {
        format!(
            r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{begin},{}]}}"#,
            begin + 4
        )
    };
    let twice = format!("{{{},{}}}", tensor("a", 0), tensor("a", 4));
    assert!(
        error(&twice, 8).contains("tensor `a` appears twice"),
        "{}",
        error(&twice, 8)
    );
    let overlap = format!("{{{},{}}}", tensor("a", 0), tensor("b", 0));
    assert!(
        error(&overlap, 4).contains("tensor `b` overlaps"),
        "{}",
        error(&overlap, 4)
    );
}

#[test]
fn lengths_that_lie_are_refused() {
    let parse = |bytes: &[u8]| Header::parse("w", bytes).unwrap_err().to_string();
    assert!(parse(b"").contains("too short"));
    assert!(parse(b"1234567").contains("too short"));
    assert!(parse(&u64::MAX.to_le_bytes()).contains("not a safetensors file"));
    assert!(parse(&100_u64.to_le_bytes()).contains("truncated"));
    assert!(parse(b"<!DOCTYPE html><html>").contains("not a safetensors file"));
}

/// A start that is longer than the file is told as what the file has.
#[test]
fn a_start_beyond_the_end_is_truncated() {
    let whole = file("{}", 0);
    for byte_len in 0..whole.len() {
        assert!(Header::parse_start("f", &whole, byte_len).is_err());
    }
    assert!(Header::parse_start("f", &whole, whole.len()).is_ok());
}

#[test]
fn unknown_dtypes_are_listed_but_have_no_kernel_type() {
    let json = r#"{"a":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},
        "b":{"dtype":"F4","shape":[2],"data_offsets":[3,4]}}"#;
    let header = Header::parse("w", &file(json, 4)).unwrap();
    assert!(
        header
            .tensors
            .values()
            .all(|info| info.dtype.dtype().is_none())
    );
}
