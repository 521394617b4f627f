//! Parts of a request that replace each other: flags, a line of a file, a record, the body of a call.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_json::{Map, Value};

use super::fields::Request;

/// Some arguments of a [`Request`], by their names there. The arguments of one overlay replace those of another.
///
/// # Examples
/// ```
/// use xdit_models::Overlay;
/// let flags = Overlay::parse(r#"{"height": 512, "width": 512, "seed": 7}"#)?;
/// let line = Overlay::parse(r#"{"prompt": "a cat", "seed": [1, 2], "num_images_per_prompt": 2, "width": null}"#)?;
/// let request = line.over(&flags).request()?;
/// assert_eq!((request.height, request.width), (Some(512), None));
/// assert_eq!(request.seeds, [1, 2]);
/// assert!(Overlay::parse(r#"{"heigth": 512}"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay(Map<String, Value>);

impl Overlay {
    /// Reads the arguments in a JSON object. Names may be written with `-`, like flags. An argument that is `null` cancels the
    /// argument of any overlay below this one.
    ///
    /// # Errors
    /// A description of the error, with the name of the field.
    pub fn parse(json: &str) -> serde_json::Result<Self> {
        let UniqueFields(fields) = serde_json::from_str(json)?;
        Self::checked(fields)
    }

    /// Creates an overlay from `fields`, which must serialise to an object.
    ///
    /// # Errors
    /// A description of the error, with the name of the field.
    pub fn of(fields: &impl Serialize) -> serde_json::Result<Self> {
        match serde_json::to_value(fields)? {
            Value::Object(fields) => Self::checked(fields),
            other => Err(Error::custom(format!("expected an object, found {other}"))),
        }
    }

    /// Returns these arguments, and those of `base` that are missing here.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let mut fields = base.0.clone();
        fields.extend(self.0.clone());
        Self(fields)
    }

    /// Returns the request with these arguments and defaults for all others. [`Request::check`] checks it.
    ///
    /// # Errors
    /// A description of the error, with the name of the field.
    pub fn request(&self) -> serde_json::Result<Request> {
        let given = self.0.iter().filter(|(_, value)| !value.is_null());
        let given: Map<String, Value> = given
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        serde_json::from_value(Value::Object(given.clone())).map_err(|error| named(error, given))
    }

    /// Whether `argument` is among these.
    #[must_use]
    pub fn has(&self, argument: &str) -> bool {
        self.0.contains_key(argument)
    }

    fn checked(fields: Map<String, Value>) -> serde_json::Result<Self> {
        let overlay = Self(fields);
        overlay.request()?;
        Ok(overlay)
    }
}

/// `error` with the name of the field that it is about. serde names only fields that it does not know.
fn named(error: serde_json::Error, fields: Map<String, Value>) -> serde_json::Error {
    let of_one_field = fields.into_iter().find_map(|(name, value)| {
        let alone = Map::from_iter([(name.clone(), value)]);
        let error = serde_json::from_value::<Request>(Value::Object(alone)).err()?;
        Some((name, error.to_string()))
    });
    match of_one_field {
        Some((name, reason)) if !reason.starts_with("unknown field") => {
            Error::custom(format!("`{name}`: {reason}"))
        }
        _ => error,
    }
}

/// The fields of an object. Each name must occur once.
struct UniqueFields(Map<String, Value>);

struct UniqueFieldsVisitor;

impl<'de> Visitor<'de> for UniqueFieldsVisitor {
    type Value = UniqueFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with arguments of a call")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<UniqueFields, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = object.next_entry::<String, Value>()? {
            let name = name.replace('-', "_");
            if fields.contains_key(&name) {
                return Err(Error::custom(format!("duplicate field `{name}`")));
            }
            fields.insert(name, value);
        }
        Ok(UniqueFields(fields))
    }
}

impl<'de> Deserialize<'de> for UniqueFields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(UniqueFieldsVisitor)
    }
}
