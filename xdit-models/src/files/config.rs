//! Reads the JSON configurations of a pipeline field by field, with the defaults of the Python classes and a range for each
//! field.
//!
//! A value outside its range is an [`Error::BadConfig`] that names the file, the field, the range and the value. No invalid
//! number reaches an allocation.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result, shorten};
use crate::quote;

/// The name of the file that makes a folder a pipeline.
pub const MODEL_INDEX: &str = "model_index.json";
/// The longest configuration, in bytes. Real ones have a few kilobytes.
pub(crate) const MAX_CONFIG_BYTES: usize = 1 << 20;

/// A parsed JSON object, with the name of its file for messages.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    file: String,
    fields: Map<String, Value>,
}

impl ConfigFile {
    /// Parses the object in `bytes`, the content of `file`.
    ///
    /// # Errors
    /// [`Error::BadFile`] if the content is longer than 1 MiB, is not JSON, or is not an object.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::ConfigFile;
    /// let config = ConfigFile::parse("transformer/config.json", br#"{"num_layers": 1000000000}"#)?;
    /// let error = config.count("num_layers", Some(19), 0..=1024).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "transformer/config.json: `num_layers` must be a whole number from 0 to 1024, found 1000000000"
    /// );
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn parse(file: impl Into<String>, bytes: &[u8]) -> Result<Self> {
        let file = file.into();
        if bytes.len() > MAX_CONFIG_BYTES {
            let most = quote::bytes(MAX_CONFIG_BYTES as u64);
            let reason = format!("too long for a configuration: more than {most}");
            return Err(Error::bad_file(file, reason));
        }
        match from_python(bytes) {
            Ok(Value::Object(fields)) => Ok(Self { file, fields }),
            Ok(other) => Err(Error::bad_file(
                file,
                format!("expected a JSON object, found {}", kind(&other)),
            )),
            Err(error) => Err(Error::bad_file(file, format!("not valid JSON: {error}"))),
        }
    }

    /// Returns the name of the file in messages.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns the value of `field`, or `None` if it is absent or null.
    #[must_use]
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// Iterates over the names of all fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// Returns the same file without these fields.
    #[must_use]
    pub(crate) fn without(&self, fields: &[String]) -> Self {
        let mut rest = self.clone();
        rest.fields.retain(|name, _| !fields.contains(name));
        rest
    }

    /// Returns the object inside `field`, if there is one. Older multi-modal configurations nest `text_config`.
    #[must_use]
    pub fn nested(&self, field: &str) -> Option<Self> {
        match self.fields.get(field) {
            Some(Value::Object(fields)) => Some(Self {
                file: self.file.clone(),
                fields: fields.clone(),
            }),
            _ => None,
        }
    }

    /// Reads a whole number inside `range`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value, or if the field is absent without a default.
    pub fn count(
        &self,
        field: &str,
        default: Option<usize>,
        range: RangeInclusive<usize>,
    ) -> Result<usize> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        match (self.value(field), default) {
            (None, Some(default)) if !self.fields.contains_key(field) => Ok(default),
            (None, _) => Err(self.bad(field, expected())),
            (Some(value), _) => whole(value)
                .filter(|n| range.contains(n))
                .ok_or_else(|| self.bad(field, expected())),
        }
    }

    /// Reads a whole number inside `range`, or `None` if the field is absent or null.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value.
    pub fn optional_count(
        &self,
        field: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        self.value(field)
            .map(|_| self.count(field, None, range))
            .transpose()
    }

    /// Reads a list of `len` whole numbers, each inside `range`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value.
    pub fn counts(
        &self,
        field: &str,
        default: &[usize],
        len: RangeInclusive<usize>,
        range: RangeInclusive<usize>,
    ) -> Result<Vec<usize>> {
        let Some(value) = self.fields.get(field) else {
            return Ok(default.to_vec());
        };
        let many = match len.start() == len.end() {
            true => len.start().to_string(),
            false => format!("{} to {}", len.start(), len.end()),
        };
        let expected = format!(
            "{many} whole numbers from {} to {}",
            range.start(),
            range.end()
        );
        value
            .as_array()
            .filter(|list| len.contains(&list.len()))
            .and_then(|list| {
                list.iter()
                    .map(|v| whole(v).filter(|n| range.contains(n)))
                    .collect()
            })
            .ok_or_else(|| self.bad(field, expected))
    }

    /// Reads a finite number inside `range`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value.
    pub fn number(&self, field: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64> {
        if !self.fields.contains_key(field) {
            return Ok(default);
        }
        let expected = || format!("a number from {} to {}", range.start(), range.end());
        self.value(field)
            .and_then(Value::as_f64)
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.bad(field, expected()))
    }

    /// Reads a finite number inside `range`, or `None` if the field is absent or null.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value.
    pub fn optional_number(&self, field: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        self.value(field)
            .map(|_| self.number(field, 0.0, range))
            .transpose()
    }

    /// Reads a list of finite numbers, or `None` if the field is absent or null.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value, or a list that is longer than `longest`.
    pub fn optional_numbers(&self, field: &str, longest: usize) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        value
            .as_array()
            .filter(|list| list.len() <= longest)
            .and_then(|list| list.iter().map(Value::as_f64).collect())
            .map(Some)
            .ok_or_else(|| self.bad(field, format!("at most {longest} numbers")))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool> {
        match self.fields.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.bad(field, "true or false")),
        }
    }

    /// Reads a string.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value, or if the field is absent without a default.
    pub fn text<'a>(&'a self, field: &str, default: Option<&'a str>) -> Result<&'a str> {
        match (self.fields.get(field), default) {
            (None, Some(default)) => Ok(default),
            (value, _) => value
                .and_then(Value::as_str)
                .ok_or_else(|| self.bad(field, "a string")),
        }
    }

    /// Reads a list of strings.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for any other value, or if the length is outside `len`.
    pub fn texts(
        &self,
        field: &str,
        default: &[&str],
        len: RangeInclusive<usize>,
    ) -> Result<Vec<String>> {
        let Some(value) = self.fields.get(field) else {
            return Ok(default.iter().map(ToString::to_string).collect());
        };
        value
            .as_array()
            .filter(|list| len.contains(&list.len()))
            .and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect())
            .ok_or_else(|| self.bad(field, format!("{} to {} strings", len.start(), len.end())))
    }

    /// Returns the value in `choices` for the string in `field`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], with all choices, if the string is none of them.
    pub fn choice<T: Clone>(&self, field: &str, default: &str, choices: &[(&str, T)]) -> Result<T> {
        let name = self.text(field, Some(default))?;
        match choices.iter().find(|(choice, _)| *choice == name) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(self.unsupported(field, choices.iter().map(|(choice, _)| *choice))),
        }
    }

    /// Creates an [`Error::BadConfig`] about `field`.
    pub fn bad(&self, field: &str, expected: impl Into<String>) -> Error {
        let found = self
            .fields
            .get(field)
            .map_or_else(|| "nothing".into(), |value| shorten(&value.to_string()));
        Error::BadConfig {
            file: self.file.clone(),
            field: field.into(),
            expected: expected.into(),
            found,
        }
    }

    /// Creates an [`Error::Unsupported`] about `field`.
    pub fn unsupported<'a>(&self, field: &str, supported: impl Iterator<Item = &'a str>) -> Error {
        Error::Unsupported {
            file: self.file.clone(),
            field: field.into(),
            found: self
                .fields
                .get(field)
                .map_or_else(|| "(absent)".into(), |value| shorten(&value.to_string())),
            supported: supported.collect::<Vec<_>>().join(", "),
        }
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// Parses `bytes` as JSON, as Python writes and reads it: see [`quote_python_numbers`].
pub(crate) fn from_python<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).or_else(|error| {
        let quoted = std::str::from_utf8(bytes).map(quote_python_numbers);
        quoted.map_or(Err(error), |text| serde_json::from_str(&text))
    })
}

/// `json` with the numbers that only Python reads as strings, where they stand outside of strings: `NaN`, `Infinity` and
/// `-Infinity`, and those beyond f64's range, which Python reads as infinity. A field that takes such a value asks for the
/// string; any other refuses it, by its name.
fn quote_python_numbers(json: &str) -> String {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut quoted = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        if !inside {
            if let Some(word) = WORDS.iter().find(|word| rest.starts_with(**word)) {
                quoted.extend(["\"", word, "\""]);
                rest = &rest[word.len()..];
                continue;
            }
            let is_number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
            if end > 0 {
                let (number, after) = rest.split_at(end);
                match number.parse::<f64>() {
                    Ok(value) if value.is_infinite() && !number.starts_with(['+', '.']) => {
                        let word = if value > 0.0 { "Infinity" } else { "-Infinity" };
                        quoted.extend(["\"", word, "\""]);
                    }
                    _ => quoted.push_str(number),
                }
                rest = after;
                continue;
            }
        }
        inside ^= c == '"' && !escaped;
        escaped = inside && c == '\\' && !escaped;
        quoted.push(c);
        rest = &rest[c.len_utf8()..];
    }
    quoted
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
