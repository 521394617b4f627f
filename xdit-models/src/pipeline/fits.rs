//! Checks that the components of a pipeline fit each other, from their configurations, before any weight is read. Each family
//! checks widths itself.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::config::ConfigFile;
use crate::files::source::ModelSource;
use crate::vae::VaeConfig;

/// Reads the configuration of the component `folder`, whose weights must not be quantised.
///
/// # Errors
/// As [`ModelSource::config`]; [`Error::BadFile`] if the weights of the component are quantised.
pub(crate) fn component(source: &ModelSource, folder: &str) -> Result<ConfigFile> {
    let file = source.config(&format!("{folder}/config.json"))?;
    match file.value("quantization_config") {
        Some(Value::Object(how)) => {
            let reason = format!(
                "`quantization_config`: {}; only weights in f32, bf16 and f16 are read: use the model before it was quantised",
                quantised(how)
            );
            Err(Error::bad_file(file.file(), reason))
        }
        Some(_) => Err(file.bad("quantization_config", "an object, or left out")),
        None => Ok(file),
    }
}

/// `quantised by bitsandbytes, 4 bit`.
fn quantised(how: &serde_json::Map<String, Value>) -> String {
    let text = |field: &str| how.get(field).and_then(Value::as_str);
    let method = text("quant_method").unwrap_or("an unnamed method");
    let is_on = |field: &str| {
        [field, &format!("_{field}")]
            .iter()
            .any(|field| how.get(*field) == Some(&Value::Bool(true)))
    };
    let bits = match how.get("bits").and_then(Value::as_u64) {
        Some(bits) => Some(format!("{bits} bit")),
        None if is_on("load_in_4bit") => Some("4 bit".to_owned()),
        None if is_on("load_in_8bit") => Some("8 bit".to_owned()),
        // The keys of quanto and torchao.
        None => ["weights_dtype", "weights", "quant_type"]
            .iter()
            .find_map(|field| text(field).map(str::to_owned)),
    };
    match bits {
        Some(bits) => format!("quantised by {method}, {bits}"),
        None => format!("quantised by {method}"),
    }
}

/// Reads the configuration of the autoencoder, which must read and write RGB images.
///
/// # Errors
/// As [`VaeConfig::read`]; [`Error::BadConfig`] for other channels.
pub(crate) fn vae(file: &ConfigFile) -> Result<VaeConfig> {
    let vae = VaeConfig::read(file)?;
    let channels = [
        ("in_channels", vae.in_channels),
        ("out_channels", vae.out_channels),
    ];
    match channels.iter().find(|(_, channels)| *channels != 3) {
        Some((field, _)) => Err(file.bad(field, "3: a picture's red, green and blue")),
        None => Ok(vae),
    }
}

/// Checks that a text encoder with `found` positions in `file` can read prompts of `length` tokens.
///
/// # Errors
/// [`Error::BadConfig`] if it has fewer positions.
pub(crate) fn positions(file: &ConfigFile, found: usize, length: usize) -> Result<()> {
    if found >= length {
        return Ok(());
    }
    let nested = file.nested("text_config");
    let expected = format!("at least {length}, the tokens of a prompt that the pipeline reads");
    Err(nested
        .as_ref()
        .unwrap_or(file)
        .bad("max_position_embeddings", expected))
}

/// Checks that the model's own size in `file`, `sample_size` latent pixels, can be drawn.
///
/// # Errors
/// [`Error::BadConfig`] if it cannot.
pub(crate) fn sample_size(
    file: &ConfigFile,
    found: usize,
    patch: usize,
    scale: usize,
) -> Result<()> {
    let most = crate::pipeline::request::MAX_SIDE / scale;
    match (patch..=most).contains(&found) {
        true => Ok(()),
        false => Err(file.bad(
            "sample_size",
            format!("from {patch} to {most} latent pixels"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> String {
        let files = [("transformer/config.json", json.as_bytes().to_vec())];
        let error = component(&ModelSource::memory(files), "transformer").unwrap_err();
        error.to_string()
    }

    #[test]
    fn quantised_components_say_how() {
        for (how, words) in [
            (
                r#"{"quant_method": "bitsandbytes", "load_in_4bit": true}"#,
                "quantised by bitsandbytes, 4 bit;",
            ),
            (
                r#"{"quant_method": "bitsandbytes", "_load_in_8bit": true}"#,
                "quantised by bitsandbytes, 8 bit;",
            ),
            (
                r#"{"quant_method": "gptq", "bits": 3}"#,
                "quantised by gptq, 3 bit;",
            ),
            (
                r#"{"quant_method": "quanto", "weights_dtype": "int8"}"#,
                "quantised by quanto, int8;",
            ),
            (
                r#"{"quant_method": "torchao", "quant_type": "int4wo"}"#,
                "quantised by torchao, int4wo;",
            ),
            (
                r#"{"quant_method": "gguf", "compute_dtype": "bfloat16"}"#,
                "quantised by gguf;",
            ),
            (r#"{"quant_method": "fp8"}"#, "quantised by fp8;"),
            ("{}", "quantised by an unnamed method;"),
            ("3", "must be an object"),
        ] {
            let message = message(&format!(r#"{{"quantization_config": {how}}}"#));
            assert!(
                message.starts_with("memory:transformer/config.json: `quantization_config`")
                    && message.contains(words),
                "{message}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_names_file_and_field() {
        let file = |json: &str| ConfigFile::parse("c.json", json.as_bytes()).unwrap();
        let said = |error: Error| error.to_string();
        let grey = vae(&file(r#"{"out_channels": 1}"#)).unwrap_err();
        assert_eq!(
            said(grey),
            "c.json: `out_channels` must be 3: a picture's red, green and blue, found 1"
        );
        assert!(vae(&file(r#"{"in_channels": 4}"#)).is_err() && vae(&file("{}")).is_ok());
        let nested = file(r#"{"text_config": {"max_position_embeddings": 64}}"#);
        let short = positions(&nested, 64, 77).unwrap_err();
        assert!(said(short).starts_with("c.json: `max_position_embeddings` must be at least 77"));
        assert!(positions(&nested, 77, 77).is_ok());
        assert!(sample_size(&file("{}"), 4096, 2, 8).is_ok());
        assert!(sample_size(&file("{}"), 4097, 2, 8).is_err());
        assert!(sample_size(&file("{}"), 1, 2, 8).is_err());
    }
}
