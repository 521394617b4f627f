//! Turns flags into a request. Flags are an overlay on it, like the lines of a prompt file.

use serde::Serialize;
use serde_json::{Map, Value, json};
use xdit_models::{Overlay, Request};

use crate::args::cli::{GenerateArgs, PlanArgs};
use crate::report::failure::Failure;

/// Returns the request fields of the flags of `generate`.
///
/// # Errors
/// [`Failure::Usage`] for a value that JSON cannot hold.
pub(crate) fn of_generate(args: &GenerateArgs) -> Result<Overlay, Failure> {
    let how = given(&args.run)?.over(&given(&args.output)?);
    Ok(given(&args.prompts)?.over(&given(&args.call)?).over(&how))
}

/// Returns the request fields of the flags of `plan`. Without a prompt it uses any prompt.
///
/// # Errors
/// As [`of_generate`].
pub(crate) fn of_plan(args: &PlanArgs) -> Result<Overlay, Failure> {
    let prompt = match args.prompt.as_slice() {
        [] => json!({"prompt": ""}),
        prompts => json!({"prompt": prompts}),
    };
    let call = given(&args.call)?.over(&given(&args.run)?);
    Ok(given(&prompt)?.over(&call))
}

/// Returns the fields of the given flags. Null, false and empty lists mean that a flag is missing, and `no_x` turns `x` off.
fn given(flags: &impl Serialize) -> Result<Overlay, Failure> {
    let told = |error: serde_json::Error| Failure::usage(error.to_string());
    let mut given = Map::new();
    if let Value::Object(fields) = serde_json::to_value(flags).map_err(told)? {
        for (name, value) in fields {
            let nothing = [Value::Null, json!(false), json!([])].contains(&value);
            match name.strip_prefix("no_") {
                _ if nothing => None,
                Some(turned_off) => given.insert(turned_off.to_owned(), json!(false)),
                None => given.insert(name, value),
            };
        }
    }
    Overlay::of(&given).map_err(told)
}

/// Returns the request of `overlay`.
///
/// # Errors
/// [`Failure::Usage`] for an invalid field.
pub(crate) fn request(overlay: &Overlay) -> Result<Request, Failure> {
    let request = overlay.request();
    request.map_err(|error| Failure::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::argv::{self, Parsed};
    use crate::args::cli::Command;
    use crate::output::record::RunRecord;
    use crate::output::record::tests::record;

    fn request(flags: &[&str]) -> Result<Request, Failure> {
        let words = ["xdit-cli", "generate"].iter().chain(flags).map(Into::into);
        match argv::parse(words)? {
            Parsed::Run(cli) => match cli.command {
                Command::Generate(args) => {
                    let request = super::request(&of_generate(&args)?)?;
                    request.check()?;
                    Ok(request)
                }
                other => panic!("not generate: {other:?}"),
            },
            Parsed::Text(text) => panic!("only text: {text}"),
        }
    }

    #[test]
    fn every_flag_arrives() {
        let flags = "--prompt a b --prompt-2 c d --negative-prompt e --negative-prompt-2 f --true-cfg-scale 2 --height 64 \
                     --prompt_3 g h --negative-prompt_3 i --clip-skip 1 --skip-guidance-layers 7,8 9 \
                     --skip-layer-guidance-scale 3 --skip_layer_guidance_start 0 --skip-layer-guidance-stop=0.5 --width 32 --num-inference-steps 3 --guidance-scale 1.5 --max-sequence-length 9 \
                     --num-images-per-prompt 2 --seed 1 2 3 4 --scheduler DDIMScheduler --guidance_rescale 0.7 \
                     --use-resolution-binning --no-use_resolution_binning --original-size 5 6 --target_size 7 8 \
                     --crops-coords-top-left 0 9 --exact-diffusers --sigmas 1,0.5 0.25 --vae-tiling --allow_non_finite";
        let request = request(&flags.split_whitespace().collect::<Vec<_>>()).unwrap();
        let expected = json!({
            "prompt": ["a", "b"], "prompt_2": ["c", "d"], "negative_prompt": ["e"], "negative_prompt_2": ["f"],
            "prompt_3": ["g", "h"], "negative_prompt_3": ["i"], "clip_skip": 1, "scheduler": "DDIMScheduler",
            "guidance_rescale": 0.7, "use_resolution_binning": false, "original_size": [5, 6], "target_size": [7, 8],
            "crops_coords_top_left": [0, 9], "exact_diffusers": true, "skip_guidance_layers": [7, 8, 9],
            "skip_layer_guidance_scale": 3.0, "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 0.5,
            "true_cfg_scale": 2.0, "height": 64, "width": 32, "num_inference_steps": 3, "sigmas": [1.0, 0.5, 0.25],
            "guidance_scale": 1.5, "max_sequence_length": 9, "num_images_per_prompt": 2, "vae_tiling": true,
            "allow_non_finite": true, "seed": [1, 2, 3, 4],
        });
        assert_eq!(serde_json::to_value(&request).unwrap(), expected);
        // Nothing else than what has a flag can be said of a request.
        let mut fields: Vec<_> = expected.as_object().unwrap().keys().cloned().collect();
        let mut all = fields_of_request();
        fields.sort_unstable();
        all.sort_unstable();
        assert_eq!(fields, all);
    }

    /// The names that serde knows.
    pub(crate) fn fields_of_request() -> Vec<String> {
        let error = Overlay::parse(r#"{"no such field": 0}"#).unwrap_err();
        let text = error.to_string();
        let (_, names) = text.split_once("expected one of ").unwrap();
        let names = names.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }

    /// Who adds an argument to `Request` adds its flag, and nothing else: lines and records hold it as it is.
    #[test]
    fn every_argument_is_a_flag_of_its_name_and_a_field_of_lines_and_records() {
        let command = argv::command();
        let generate = command.find_subcommand("generate").unwrap();
        let example = json!({
            "prompt": "a", "seed": 7, "scheduler": "DDIMScheduler", "use_resolution_binning": true, "exact_diffusers": true,
            "vae_tiling": true, "allow_non_finite": true, "sigmas": [0.5], "skip_guidance_layers": [1],
            "prompt_2": "a", "prompt_3": "a", "negative_prompt": "a", "negative_prompt_2": "a", "negative_prompt_3": "a",
            "original_size": [64, 64], "target_size": [64, 64], "crops_coords_top_left": [64, 64],
        });
        for name in fields_of_request() {
            let flag = name.replace('_', "-");
            let long = |argument: &clap::Arg| argument.get_long() == Some(flag.as_str());
            assert!(generate.get_arguments().any(long), "no flag --{flag}");
            let value = example.get(&name).cloned().unwrap_or(json!(1));
            let line = json!({"prompt": "a", "skip_guidance_layers": [1], (name.as_str()): value})
                .to_string();
            let in_line = Overlay::parse(&line).unwrap().request().unwrap();
            in_line.check().unwrap();
            let mut record = record();
            record.request = in_line;
            let again = RunRecord::parse(&record.to_json()).unwrap();
            let kept = serde_json::to_value(&again.request).unwrap();
            let kept = kept
                .get(&name)
                .unwrap_or_else(|| panic!("no {name} in a record"));
            assert!(
                *kept == value || *kept == json!([value]) || kept.as_f64() == value.as_f64(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_nothing_can_serve_is_said_early() {
        let cases: [(&[&str], &str); 7] = [
            (
                &["--prompt", "a", "--prompt-3", "c", "d"],
                "--prompt-3 2 prompts: must be 1 prompt, as --prompt is",
            ),
            (
                &["--prompt", "a", "--negative-prompt-3", "c", "d"],
                "--negative-prompt-3 2 prompts",
            ),
            (&["--prompt", "a", "--width", "0"], "--width 0"),
            (
                &["--prompt", "a", "--num-images-per-prompt", "0"],
                "--num-images-per-prompt 0",
            ),
            (
                &["--prompt", "a", "--seed", "1", "2"],
                "--seed 2 seeds: must be 1 seed",
            ),
            (
                &["--prompt", "a", "b", "--prompt-2", "c", "d", "e"],
                "--prompt-2 3 prompts",
            ),
            (
                &["--prompt", "a", "--negative-prompt", "c", "d"],
                "--negative-prompt 2 prompts",
            ),
        ];
        for (flags, message) in cases {
            let failure = request(flags).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(message), "{failure}");
        }
    }
}
