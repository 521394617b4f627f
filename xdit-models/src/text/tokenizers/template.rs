//! The special tokens around a prompt, from the `post_processor` of a `tokenizer.json`.

use serde_json::Value;

use super::json;
use super::limits::MAX_SPECIAL;

/// The ids before and after those of a prompt.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Template {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

impl Template {
    /// Reads the part `post_processor` of a `tokenizer.json`.
    pub(super) fn of_json(value: &Value) -> Result<Self, String> {
        let mut whole = Self::default();
        for step in json::steps(value, "post_processor", "processors")? {
            let step = Self::of_step(step)?;
            whole.before.splice(0..0, step.before);
            whole.after.extend(step.after);
        }
        if whole.special() > MAX_SPECIAL {
            return Err(format!(
                "`post_processor` puts {} special tokens around a prompt (at most {MAX_SPECIAL})",
                whole.special()
            ));
        }
        Ok(whole)
    }

    fn of_step(step: &Value) -> Result<Self, String> {
        match step["type"].as_str() {
            Some("ByteLevel") => Ok(Self::default()),
            Some("TemplateProcessing") => Self::of_template(step),
            // Old files have no type.
            Some("BertProcessing" | "RobertaProcessing") | None => {
                let id = |key: &str| {
                    let id = step[key][1].as_u64().and_then(|id| u32::try_from(id).ok());
                    id.ok_or_else(|| format!("`post_processor` without a token and an id `{key}`"))
                };
                Ok(Self {
                    before: vec![id("cls")?],
                    after: vec![id("sep")?],
                })
            }
            Some(_) => Err(format!(
                "`post_processor` of an unknown type {}",
                step["type"]
            )),
        }
    }

    fn of_template(step: &Value) -> Result<Self, String> {
        let bad = |what: &str| format!("`post_processor.single` {what}");
        let pieces = step["single"].as_array();
        let pieces = pieces.ok_or_else(|| bad("is no list"))?;
        let mut sides = Vec::new();
        let mut side = Vec::new();
        for piece in pieces {
            if let Value::String(id) = &piece["Sequence"]["id"] {
                if id != "A" {
                    return Err(bad("has a second sequence; there is one prompt"));
                }
                sides.push(std::mem::take(&mut side));
            } else if let Value::String(token) = &piece["SpecialToken"]["id"] {
                let ids = step["special_tokens"][token]["ids"].as_array();
                let ids = ids.ok_or_else(|| bad("has a token that `special_tokens` has not"))?;
                for id in ids {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    side.push(id.ok_or_else(|| bad("has a token without whole ids"))?);
                }
            } else {
                return Err(bad("has a piece that is neither a prompt nor a token"));
            }
            if side.len() > MAX_SPECIAL {
                return Err(bad(&format!("has more than {MAX_SPECIAL} special tokens")));
            }
        }
        match <[Vec<u32>; 1]>::try_from(sides) {
            Ok([before]) => Ok(Self {
                before,
                after: side,
            }),
            Err(sides) => Err(bad(&format!(
                "has the prompt (`$A`) {} times; it must have it once",
                sides.len()
            ))),
        }
    }

    /// Returns the number of special tokens.
    pub(super) fn special(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Returns the ids of a prompt with the special tokens around it.
    pub(super) fn around(&self, ids: &[u32]) -> Vec<u32> {
        [&self.before, ids, &self.after].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(pieces: &[&str]) -> Value {
        let pieces = pieces.iter().map(|piece| match piece.strip_prefix('$') {
            Some(id) => json!({"Sequence": {"id": id, "type_id": 0}}),
            None => json!({"SpecialToken": {"id": piece, "type_id": 0}}),
        });
        json!({"type": "TemplateProcessing", "single": pieces.collect::<Vec<_>>(), "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 2]}, "</s>": {"id": "</s>", "ids": [3]}}})
    }

    #[test]
    fn tokens_stand_around_the_prompt() {
        let inner = template(&["<s>", "$A", "</s>"]);
        let bert = json!({"type": "BertProcessing", "sep": ["[SEP]", 8], "cls": ["[CLS]", 9]});
        let all = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, inner, bert]});
        let all = Template::of_json(&all).unwrap();
        assert_eq!(all.around(&[5]), [9, 1, 2, 5, 3, 8]);
        assert_eq!(all.special(), 5);
        assert_eq!(Template::of_json(&Value::Null).unwrap().around(&[5]), [5]);
    }

    #[test]
    fn a_template_has_the_prompt_once() {
        for (value, part) in [
            (
                template(&["$A", "$A", "$A"]),
                "has the prompt (`$A`) 3 times",
            ),
            (template(&["<s>"]), "has the prompt (`$A`) 0 times"),
            (template(&["$A", "$B"]), "has a second sequence"),
            (template(&["$A", "<x>"]), "that `special_tokens` has not"),
            (
                template(&[&["</s>"; 1025][..], &["$A"]].concat()),
                "more than 1024 special tokens",
            ),
            (json!({"type": "X"}), "of an unknown type \"X\""),
            (json!({"type": "TemplateProcessing"}), "is no list"),
            (json!({"sep": ["a", 1]}), "without a token and an id `cls`"),
        ] {
            let error = Template::of_json(&value).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
