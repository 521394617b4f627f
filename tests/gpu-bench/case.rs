//! The cases of `cases.json`.

use crate::Failure;
use serde_json::Value;

/// The operations and their sizes, which the Python side reads too.
const CASES: &str = include_str!("cases.json");

/// One operation with its sizes.
#[derive(Debug, Clone)]
pub(crate) struct BenchCase {
    pub(crate) name: String,
    pub(crate) op: String,
    fields: Value,
}

impl BenchCase {
    /// All cases; with tiny sizes where a case is only to run.
    pub(crate) fn all(smoke: bool) -> Result<Vec<Self>, Failure> {
        let cases: Vec<Value> = serde_json::from_str(CASES)?;
        let case = |mut fields: Value| {
            let tiny = fields["smoke"].take();
            let tiny = tiny.as_object().filter(|_| smoke).into_iter().flatten();
            for (name, value) in tiny {
                fields[name] = value.clone();
            }
            let text = |name: &str| {
                let text = fields[name].as_str();
                text.map(str::to_owned)
                    .ok_or(format!("a case without {name}"))
            };
            Ok(Self {
                name: text("name")?,
                op: text("op")?,
                fields,
            })
        };
        cases.into_iter().map(case).collect()
    }

    pub(crate) fn size(&self, name: &str) -> Result<usize, Failure> {
        let size = self.fields[name].as_u64();
        Ok(size.ok_or(format!("{}: {name} is missing", self.name))? as usize)
    }

    /// The configuration of a model, as a JSON file has it.
    pub(crate) fn config(&self) -> String {
        self.fields["config"].to_string()
    }
}
