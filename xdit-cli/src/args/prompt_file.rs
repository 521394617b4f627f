//! `--prompt-file`: one request a line.
//!
//! A line that begins with `{` is a JSON object with the flags' names (`prompt`, `seed`, `height`, …) as far as they differ
//! from the command line; any other line is a prompt. Blank lines are skipped.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use xdit_models::Request;

use crate::args::request;
use crate::report::failure::system_reason;
use crate::report::failure::{Failure, shown};

/// Larger files are refused: they are read whole.
const MOST_BYTES: u64 = 256 << 20;

/// A line of the file: its number from 1, and the request that it makes or why it makes none.
#[derive(Debug)]
pub(crate) struct Line {
    /// Counted from 1, blank lines too.
    pub number: usize,
    /// The request, or what is wrong with the line.
    pub request: Result<Request, String>,
}

/// What a JSON line may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    prompt: Texts,
    prompt_2: Option<Texts>,
    negative_prompt: Option<Texts>,
    negative_prompt_2: Option<Texts>,
    prompt_3: Option<Texts>,
    negative_prompt_3: Option<Texts>,
    clip_skip: Option<usize>,
    scheduler: Option<String>,
    guidance_rescale: Option<f64>,
    use_resolution_binning: Option<bool>,
    original_size: Option<[usize; 2]>,
    target_size: Option<[usize; 2]>,
    crops_coords_top_left: Option<[usize; 2]>,
    exact_diffusers: Option<bool>,
    skip_guidance_layers: Option<Vec<usize>>,
    skip_layer_guidance_scale: Option<f64>,
    skip_layer_guidance_start: Option<f64>,
    skip_layer_guidance_stop: Option<f64>,
    true_cfg_scale: Option<f64>,
    height: Option<usize>,
    width: Option<usize>,
    num_inference_steps: Option<usize>,
    guidance_scale: Option<f64>,
    max_sequence_length: Option<usize>,
    num_images_per_prompt: Option<usize>,
    seed: Option<Seeds>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Texts {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a whole number or a list of them")]
enum Seeds {
    One(Seed),
    Several(Vec<Seed>),
}

/// A seed: what fits 64 bits, with or without a sign.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Seed {
    Unsigned(u64),
    Signed(i64),
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Several(list) => list,
        }
    }
}

impl From<Seed> for i128 {
    fn from(seed: Seed) -> Self {
        match seed {
            Seed::Unsigned(seed) => seed.into(),
            Seed::Signed(seed) => seed.into(),
        }
    }
}

/// The lines of the file at `path`, or of standard input for `-`; `base` is what the flags ask for.
///
/// # Errors
/// [`Failure::Input`] when it cannot be read, [`Failure::Usage`] when it holds no prompt.
pub(crate) fn read(path: &Path, base: &Request) -> Result<Vec<Line>, Failure> {
    let failed = |error: &std::io::Error| Failure::input(path, system_reason(error));
    let mut bytes = Vec::new();
    let reader: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(path).map_err(|e| failed(&e))?),
    };
    let mut limited = reader.take(MOST_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Failure::input(
            path,
            format!("more than {MOST_BYTES} bytes"),
        ));
    }
    let lines = parse(&bytes, base);
    match lines.is_empty() {
        true => Err(Failure::usage(format!(
            "--prompt-file {}: no prompt in it",
            shown(path)
        ))),
        false => Ok(lines),
    }
}

fn parse(bytes: &[u8], base: &Request) -> Vec<Line> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| Line {
            number: index + 1,
            request: request(line, base),
        })
        .collect()
}

fn request(line: &[u8], base: &Request) -> Result<Request, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.trim();
    let mut request = base.clone();
    if !text.starts_with('{') {
        request.prompt = vec![text.to_owned()];
    } else {
        let fields: Fields = serde_json::from_str(text).map_err(|e| reason(&e))?;
        request.prompt = fields.prompt.into();
        let texts =
            |given: Option<Texts>, base: Option<Vec<String>>| given.map(Into::into).or(base);
        request.prompt_2 = texts(fields.prompt_2, request.prompt_2);
        request.negative_prompt = texts(fields.negative_prompt, request.negative_prompt);
        request.negative_prompt_2 = texts(fields.negative_prompt_2, request.negative_prompt_2);
        request.prompt_3 = texts(fields.prompt_3, request.prompt_3);
        request.negative_prompt_3 = texts(fields.negative_prompt_3, request.negative_prompt_3);
        request.clip_skip = fields.clip_skip.unwrap_or(request.clip_skip);
        request.scheduler = fields.scheduler.or(request.scheduler);
        request.guidance_rescale = fields.guidance_rescale.unwrap_or(request.guidance_rescale);
        request.use_resolution_binning = fields
            .use_resolution_binning
            .or(request.use_resolution_binning);
        request.original_size = fields.original_size.or(request.original_size);
        request.target_size = fields.target_size.or(request.target_size);
        request.crops_coords_top_left = fields
            .crops_coords_top_left
            .or(request.crops_coords_top_left);
        request.exact_diffusers = fields.exact_diffusers.unwrap_or(request.exact_diffusers);
        let blocks = fields
            .skip_guidance_layers
            .unwrap_or_else(|| request.skip_guidance_layers.clone());
        let numbers = [
            fields.skip_layer_guidance_scale,
            fields.skip_layer_guidance_start,
            fields.skip_layer_guidance_stop,
        ];
        if blocks.is_empty() && numbers.iter().any(Option::is_some) {
            return Err("skip_layer_guidance_… has no effect without skip_guidance_layers".into());
        }
        let [scale, start, stop] = numbers;
        request = request::skip_layers(request, &blocks, scale, start, stop);
        request.true_cfg_scale = fields.true_cfg_scale.unwrap_or(request.true_cfg_scale);
        request.height = fields.height.or(request.height);
        request.width = fields.width.or(request.width);
        request.num_inference_steps = fields.num_inference_steps.or(request.num_inference_steps);
        request.guidance_scale = fields.guidance_scale.or(request.guidance_scale);
        request.max_sequence_length = fields.max_sequence_length.or(request.max_sequence_length);
        request.num_images_per_prompt = fields
            .num_images_per_prompt
            .unwrap_or(request.num_images_per_prompt);
        match fields.seed {
            Some(Seeds::One(seed)) => request.seeds = vec![seed.into()],
            Some(Seeds::Several(seeds)) => {
                request.seeds = seeds.into_iter().map(Into::into).collect();
            }
            None => {}
        }
    }
    request::check(&request).map_err(|failure| failure.to_string())?;
    Ok(request)
}

/// serde's reason: its line is always 1, so only the column is kept.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    format!("{} (column {})", &text[..end], error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Request {
        Request::new::<&str>([]).height(64).seed(7)
    }

    #[test]
    fn prompts_and_objects() {
        let text = "\u{feff}a red circle\r\n\n  {\"prompt\": \"b\", \"seed\": [1, -2], \"num_images_per_prompt\": 2, \
                    \"width\": 32}\nlast";
        let lines = parse(text.as_bytes(), &base());
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
        let base = base().skip_guidance_layers([7]).clip_skip(2);
        let line = request(text.replace('\n', " ").as_bytes(), &base).unwrap();
        let expected = Request::new(["a"])
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
        let line = request(b"{\"prompt\": \"a\"}", &base).unwrap();
        assert_eq!((line.clip_skip, line.skip_guidance_layers), (2, vec![7]));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, reason) in [
            (
                &b"{\"prompt\": \"a\", \"heigth\": 3}"[..],
                "unknown field `heigth`",
            ),
            (b"{\"seed\": 3}", "missing field `prompt`"),
            (b"{\"prompt\": 3}", "expected a text"),
            (b"{\"prompt\": \"a\", \"seed\": 1.5}", "whole number"),
            (b"{\"prompt\": \"a\", \"width\": 0}", "--width 0"),
            (
                b"{\"prompt\": \"a\", \"seed\": [1, 2]}",
                "2 values for 1 image",
            ),
            (
                b"{\"prompt\": \"a\", \"skip_layer_guidance_stop\": 0.5}",
                "without skip_guidance_layers",
            ),
            (
                b"{\"prompt\": \"a\", \"target_size\": [3]}",
                "invalid length 1",
            ),
            (
                b"{\"prompt\": \"a\", \"skip_guidance_layers\": 3}",
                "expected a sequence",
            ),
            (b"{\"prompt\": \"a\"", "column 14"),
            (b"\xff\xfe", "UTF-8"),
        ] {
            let lines = parse(line, &base());
            let error = lines[0].request.as_ref().unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_file_without_prompts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.txt");
        std::fs::write(&file, "\n  \n").unwrap();
        assert_eq!(read(&file, &base()).unwrap_err().exit_code(), 2);
        let missing = read(&folder.path().join("no"), &base()).unwrap_err();
        assert_eq!(missing.exit_code(), 1);
    }
}
