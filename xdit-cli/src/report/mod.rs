//! The output of a run for people and machines: the console, progress, logs, traces, tables, failures.

pub(crate) mod bar;
pub(crate) mod console;
pub(crate) mod failure;
#[cfg(unix)]
pub(crate) mod farewell;
pub(crate) mod logging;
pub(crate) mod pipefusion;
pub(crate) mod plan_json;
pub(crate) mod plan_text;
pub(crate) mod progress;
pub(crate) mod standing;
pub(crate) mod table;
pub(crate) mod trace;
pub(crate) mod voice;
