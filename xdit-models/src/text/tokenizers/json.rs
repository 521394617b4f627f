//! Finds the parts of a `tokenizer.json` without building a tree, because a tree takes many times the memory of its file.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::limits::{MAX_DEPTH, MAX_PART_BYTES, MAX_STEPS};
use crate::quote;

/// Checks the JSON text in `bytes`.
pub(super) fn checked(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not valid JSON: {error}"))?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("not valid JSON: {error}")),
    }
}

/// The texts of the members `names` of the object `json`, which is valid JSON; `None` where it is not an object.
///
/// The last one wins if several members have the same name. A null counts as missing.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Option<[Option<&'a str>; N]> {
    let mut rest = json.trim_ascii().strip_prefix('{')?.trim_ascii_start();
    let mut found = [None; N];
    while rest.starts_with('"') {
        let (key, after) = rest.split_at(value_len(rest));
        let value = after
            .trim_ascii_start()
            .strip_prefix(':')?
            .trim_ascii_start();
        let (value, after) = value.split_at(value_len(value));
        let value = value.trim_ascii_end();
        let key: Option<String> = serde_json::from_str(key.trim_ascii_end()).ok();
        if let Some(i) = names.iter().position(|name| Some(*name) == key.as_deref()) {
            found[i] = (value != "null").then_some(value);
        }
        rest = after.strip_prefix(',').unwrap_or("").trim_ascii_start();
    }
    Some(found)
}

/// Returns the number of bytes of the first value of `json`, which is valid JSON: up to the comma, colon or bracket after it.
fn value_len(json: &str) -> usize {
    let (mut depth, mut inside, mut escaped) = (0_usize, false, false);
    for (i, byte) in json.bytes().enumerate() {
        if inside {
            inside = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => inside = true,
            b'{' | b'[' => depth += 1,
            b',' | b':' | b'}' | b']' if depth == 0 => return i,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    json.len()
}

/// Returns the value of the part `name`, whose length is limited, or null if it is missing.
pub(super) fn part(json: Option<&str>, name: &str) -> Result<Value, String> {
    let json = json.unwrap_or("null");
    if json.len() > MAX_PART_BYTES {
        return Err(format!(
            "`{name}` has more than {}",
            quote::bytes(MAX_PART_BYTES as u64)
        ));
    }
    serde_json::from_str(json).map_err(|error| format!("`{name}`: {error}"))
}

/// Returns the steps of `value`, in order: itself, or those in the list `list` of a `Sequence`, which may be nested.
///
/// The tokenizers library follows such trees without a limit. It therefore receives only their leaves.
pub(super) fn steps<'a>(
    value: &'a Value,
    name: &str,
    list: &str,
) -> Result<Vec<&'a Value>, String> {
    let mut found = Vec::new();
    // The steps that are still to be visited, the next one last, each with its depth.
    let mut open = vec![(value, 0)];
    while let Some((value, depth)) = open.pop() {
        if value.is_null() && depth == 0 {
            continue;
        }
        let sequence = match &value["type"] {
            Value::Null => value.get(list).is_some(),
            kind => kind == "Sequence",
        };
        if !sequence {
            found.push(value);
        } else if depth == MAX_DEPTH {
            return Err(format!(
                "`{name}` has more than {MAX_DEPTH} Sequences in each other"
            ));
        } else {
            let inner = value[list]
                .as_array()
                .ok_or_else(|| format!("`{name}` is a Sequence without a list `{list}`"))?;
            if inner.len() > MAX_STEPS {
                return Err(format!("`{name}` has more than {MAX_STEPS} steps"));
            }
            open.extend(inner.iter().rev().map(|step| (step, depth + 1)));
        }
        if found.len() + open.len() > MAX_STEPS {
            return Err(format!("`{name}` has more than {MAX_STEPS} steps"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_found_as_they_are_written() {
        let text =
            r#" {"a" : [1, {"b": "}\"],"}] , "\u0062":"x:,\\" ,"c":null,"d":{} , "a2":-1e3} "#;
        let found = members(
            checked(text.as_bytes()).unwrap(),
            ["a", "b", "c", "d", "a2", "e"],
        );
        let [a, b, c, d, a2, e] = found.unwrap();
        assert_eq!((a, b), (Some(r#"[1, {"b": "}\"],"}]"#), Some(r#""x:,\\""#)));
        assert_eq!((c, d, a2, e), (None, Some("{}"), Some("-1e3"), None));
        assert_eq!(members("{}", ["a"]), Some([None]));
        assert_eq!(members("[1]", ["a"]), None);
        assert_eq!(members(r#"{"a":1,"a":2}"#, ["a"]), Some([Some("2")]));
        assert!(checked(b"{\"a\":\xff}").is_err() && checked(b"{,}").is_err());
    }

    #[test]
    fn steps_have_a_depth_and_a_number() {
        let of = |value: &Value| steps(value, "normalizer", "normalizers").map(|steps| steps.len());
        assert_eq!(of(&Value::Null), Ok(0));
        assert_eq!(of(&json!({"type": "NFC"})), Ok(1));
        let nest = |depth| {
            (0..depth).fold(
                json!({"type": "NFC"}),
                |inner, _| json!({"type": "Sequence", "normalizers": [inner, {"type": "NFD"}]}),
            )
        };
        assert_eq!(of(&nest(16)), Ok(17));
        assert_eq!(
            of(&nest(17)).unwrap_err(),
            "`normalizer` has more than 16 Sequences in each other"
        );
        assert_eq!(
            of(&json!({"type": "Sequence"})).unwrap_err(),
            "`normalizer` is a Sequence without a list `normalizers`"
        );
        let many = json!({"normalizers": vec![json!({"type": "NFC"}); 33]});
        assert_eq!(
            of(&many).unwrap_err(),
            "`normalizer` has more than 32 steps"
        );
        assert!(part(Some(&"[".repeat(200)), "normalizer").is_err());
        assert!(part(Some(&" ".repeat(3 << 20)), "normalizer").is_err());
    }
}
