//! `--prompt-file`: one request a line.
//!
//! A line that begins with `{` is a JSON object with the names of flags (`prompt`, `seed`, `height`, …) that differ from the
//! command line; `null` cancels a flag. Any other line is a prompt. Blank lines and lines that begin with `#` are skipped.

use std::io::Read;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::json;
use xdit_models::{Overlay, Request, quote};

use crate::report::failure::system_reason;
use crate::report::failure::{Failure, shown};

/// The largest file, because it is read whole.
pub(crate) const MOST_BYTES: u64 = 256 << 20;

/// A line of the file: its number from 1, and its request or an error.
#[derive(Debug)]
pub(crate) struct PromptLine {
    /// Counted from 1, blank lines too.
    pub number: usize,
    /// The request, or the error of the line.
    pub request: Result<Request, String>,
}

/// Returns the bytes of the file at `path`, or of standard input for `-`, `most` at most.
///
/// # Errors
/// [`Failure::Input`] if it cannot be read.
pub(crate) fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: &std::io::Error| Failure::input(path, system_reason(error));
    let mut bytes = Vec::new();
    let reader: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(path).map_err(|e| failed(&e))?),
    };
    let mut limited = reader.take(most + 1);
    limited.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    match bytes.len() as u64 > most {
        true => Err(Failure::input(
            path,
            format!("more than {}", quote::bytes(most)),
        )),
        false => Ok(bytes),
    }
}

/// Returns the lines of the file at `path` with these bytes. `flags` are those of the command line.
///
/// # Errors
/// [`Failure::Usage`] if it contains no prompt.
pub(crate) fn lines(
    path: &Path,
    bytes: &[u8],
    flags: &Overlay,
    increment_seed: bool,
) -> Result<Vec<PromptLine>, Failure> {
    let lines = parse(bytes, flags, increment_seed);
    match lines.is_empty() {
        true => Err(Failure::usage(format!(
            "--prompt-file {}: no prompt in it",
            shown(path)
        ))),
        false => Ok(lines),
    }
}

fn parse(bytes: &[u8], flags: &Overlay, increment_seed: bool) -> Vec<PromptLine> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .filter(|(_, line)| !line.trim_ascii().starts_with(b"#"))
        .enumerate()
        .map(|(drawn_before, (index, line))| PromptLine {
            number: index + 1,
            request: request(line, flags, if increment_seed { drawn_before } else { 0 }),
        })
        .collect()
}

/// The request of a line. Each seed of the flags grows by `increment` times their number, so that no two lines share one.
fn request(line: &[u8], flags: &Overlay, increment: usize) -> Result<Request, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.trim();
    if text == "[" || serde_json::from_str::<Vec<IgnoredAny>>(text).is_ok() {
        return Err("is a JSON array; write one object on each line".into());
    }
    let line = match text.starts_with('{') {
        true => Overlay::parse(text),
        false => Overlay::of(&json!({"prompt": text})),
    };
    let line = line.map_err(|e| reason(&e))?;
    let mut request = line.over(flags).request().map_err(|e| reason(&e))?;
    if !line.has("seed") {
        let step = increment.saturating_mul(request.seeds.len()) as i128;
        for seed in &mut request.seeds {
            *seed += step;
        }
    }
    request
        .check()
        .map_err(|error| Failure::from(error).to_string())?;
    Ok(request)
}

/// Returns serde's reason without the line, which is always 1, and with its names of types in plain words.
fn reason(error: &serde_json::Error) -> String {
    const TYPES: [(&str, &str); 6] = [
        ("usize", "a whole number from 0"),
        ("i128", "a whole number"),
        ("f64", "a number"),
        ("a boolean", "true or false"),
        ("a string", "a text"),
        ("a sequence", "a list"),
    ];
    let text = error.to_string();
    if let Some(end) = text.rfind(" at line ") {
        return format!("{} (column {})", &text[..end], error.column());
    }
    let plain = TYPES.iter().find_map(|(name, plain)| {
        let start = text.strip_suffix(name)?;
        start
            .ends_with("expected ")
            .then(|| format!("{start}{plain}"))
    });
    plain.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        path: &Path,
        flags: &Overlay,
        increment_seed: bool,
    ) -> Result<Vec<PromptLine>, Failure> {
        lines(path, &bytes(path, MOST_BYTES)?, flags, increment_seed)
    }

    fn base() -> Overlay {
        Overlay::parse(r#"{"height": 64, "seed": 7}"#).unwrap()
    }

    #[test]
    fn prompts_and_objects() {
        let text = "\u{feff}a red circle\r\n\n  {\"prompt\": \"b\", \"seed\": [1, -2], \"num_images_per_prompt\": 2, \
                    \"width\": 32}\nlast";
        let lines = parse(text.as_bytes(), &base(), false);
        assert_eq!(
            lines.iter().map(|l| l.number).collect::<Vec<_>>(),
            [1, 3, 4]
        );
        let requests: Vec<_> = lines.into_iter().map(|l| l.request.unwrap()).collect();
        assert_eq!(requests[0].prompt, ["a red circle"]);
        assert_eq!((requests[0].height, requests[0].width), (Some(64), None));
        assert_eq!(requests[0].seeds, [7]);
        assert_eq!(
            (requests[1].height, requests[1].width),
            (Some(64), Some(32))
        );
        assert_eq!(requests[1].seeds, [1, -2]);
        assert_eq!(requests[2].prompt, ["last"]);
    }

    #[test]
    fn a_line_says_what_it_has_of_its_own() {
        let text = r#"{"prompt": "a", "prompt_3": "b", "negative_prompt_3": ["c"], "clip_skip": 1,
            "skip_guidance_layers": [2, 3], "skip_layer_guidance_scale": 3.5, "skip_layer_guidance_start": 0,
            "skip_layer_guidance_stop": 0.5, "scheduler": "DDIMScheduler", "use_resolution_binning": false,
            "original_size": [3, 4], "exact_diffusers": true}"#;
        let flags = r#"{"skip_guidance_layers": [7], "clip_skip": 2}"#;
        let base = Overlay::parse(flags).unwrap().over(&base());
        let line = request(text.replace('\n', " ").as_bytes(), &base, 0).unwrap();
        let expected = Request::new("a")
            .height(64)
            .seed(7)
            .prompt_3(["b"])
            .negative_prompt_3(["c"])
            .clip_skip(1)
            .skip_guidance_layers([2, 3])
            .skip_layer_guidance(3.5, 0., 0.5)
            .scheduler("DDIMScheduler")
            .use_resolution_binning(false)
            .original_size([3, 4])
            .exact_diffusers(true);
        assert_eq!(format!("{line:?}"), format!("{expected:?}"));
        // What it does not say is the flags'.
        let line = request(b"{\"prompt\": \"a\"}", &base, 0).unwrap();
        assert_eq!((line.clip_skip, line.skip_guidance_layers), (2, vec![7]));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, reason) in [
            (
                &b"{\"prompt\": \"a\", \"heigth\": 3}"[..],
                "unknown field `heigth`",
            ),
            (
                b"{\"seed\": 3}",
                "--prompt nothing: must be at least one prompt",
            ),
            (
                b"{\"prompt\": 3}",
                "`prompt`: invalid type: integer `3`, expected a text",
            ),
            (
                b"{\"prompt\": \"a\", \"seed\": 1.5}",
                "`seed`: invalid type: floating point `1.5`, expected a whole number or a list",
            ),
            (
                b"{\"prompt\": \"a\", \"num-inference-steps\": \"4\"}",
                "`num_inference_steps`: invalid type: string \"4\", expected a whole number from 0",
            ),
            (b"{\"prompt\": \"a\", \"width\": 0}", "--width 0"),
            (b"{\"prompt\": \"a\", \"seed\": [1, 2]}", "--seed 2 seeds"),
            (
                b"{\"prompt\": \"a\", \"skip_layer_guidance_stop\": 0.5}",
                "left out without --skip-guidance-layers",
            ),
            (
                b"{\"prompt\": \"a\", \"target_size\": [3]}",
                "`target_size`: invalid length 1",
            ),
            (
                b"{\"prompt\": \"a\", \"skip_guidance_layers\": 3}",
                "`skip_guidance_layers`: invalid type: integer `3`, expected a list",
            ),
            (b"{\"prompt\": \"a\"", "column 14"),
            (b"[\"a\", \"b\"]", "is a JSON array"),
            (b"[]", "is a JSON array"),
            (b"[", "is a JSON array"),
            (
                b"{\"prompt\": \"a\", \"clip_skip\": 1, \"clip-skip\": 2}",
                "duplicate field",
            ),
            (b"\xff\xfe", "UTF-8"),
        ] {
            let lines = parse(line, &base(), false);
            let error = lines[0].request.as_ref().unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn comments_spellings_and_seeds() {
        let text = "# a comment\n[oil] a cat\n\n{\"prompt\": \"b\", \"num-inference-steps\": 3}\n  # more\n\
                    {\"prompt\": \"c\", \"seed\": 40}\nd";
        let lines = parse(text.as_bytes(), &base(), true);
        let numbers: Vec<_> = lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [2, 4, 6, 7]);
        let requests: Vec<_> = lines
            .into_iter()
            .map(|line| line.request.unwrap())
            .collect();
        assert_eq!(requests[0].prompt, ["[oil] a cat"]);
        assert_eq!(requests[1].num_inference_steps, Some(3));
        let seeds: Vec<_> = requests.iter().map(|request| request.seeds[0]).collect();
        assert_eq!(seeds, [7, 8, 40, 10]);
        let lines = parse(text.as_bytes(), &base(), false);
        assert_eq!(lines[3].request.as_ref().unwrap().seeds, [7]);
    }

    #[test]
    fn a_file_without_prompts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.txt");
        std::fs::write(&file, "\n  \n").unwrap();
        assert_eq!(read(&file, &base(), false).unwrap_err().exit_code(), 2);
        let missing = read(&folder.path().join("no"), &base(), false).unwrap_err();
        assert_eq!(missing.exit_code(), 1);
    }
}
