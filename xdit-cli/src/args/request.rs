//! From flags to a request, from a request to its record, and back.

use xdit_models::schedulers::SchedulerConfig;
use xdit_models::{Defaults, Output, Request};

use crate::args::call::CallArgs;
use crate::output::record::RequestRecord;
use crate::report::failure::Failure;

/// The request that the flags make; [`check`] tells whether any pipeline can serve it.
pub(crate) fn from_args(prompts: &[String], call: &CallArgs) -> Request {
    let mut request = Request::new(prompts.iter().cloned())
        .num_images_per_prompt(call.num_images_per_prompt)
        .seeds(call.seed.iter().copied());
    let texts = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    request.prompt_2 = texts(&call.prompt_2);
    request.negative_prompt = texts(&call.negative_prompt);
    request.negative_prompt_2 = texts(&call.negative_prompt_2);
    request.prompt_3 = texts(&call.prompt_3);
    request.negative_prompt_3 = texts(&call.negative_prompt_3);
    request.true_cfg_scale = call.true_cfg_scale.unwrap_or(request.true_cfg_scale);
    request.clip_skip = call.clip_skip.unwrap_or(request.clip_skip);
    request.scheduler = call.scheduler.clone();
    request.guidance_rescale = call.guidance_rescale.unwrap_or(request.guidance_rescale);
    request.use_resolution_binning = call.resolution_binning();
    // The parser takes exactly two numbers.
    let two = |list: &Option<Vec<usize>>| list.as_deref()?.try_into().ok();
    request.original_size = two(&call.original_size);
    request.target_size = two(&call.target_size);
    request.crops_coords_top_left = two(&call.crops_coords_top_left);
    request.exact_diffusers = call.exact_diffusers;
    let [scale, start, stop] = [
        call.skip_layer_guidance_scale,
        call.skip_layer_guidance_start,
        call.skip_layer_guidance_stop,
    ];
    request = skip_layers(request, &call.skip_guidance_layers, scale, start, stop);
    request.height = call.height;
    request.width = call.width;
    request.num_inference_steps = call.num_inference_steps;
    request.guidance_scale = call.guidance_scale;
    request.max_sequence_length = call.max_sequence_length;
    request
}

/// `request` with these blocks left out in a branch of guidance; what is not given stays as it is.
pub(crate) fn skip_layers(
    request: Request,
    blocks: &[usize],
    scale: Option<f64>,
    start: Option<f64>,
    stop: Option<f64>,
) -> Request {
    let scale = scale.unwrap_or(request.skip_layer_guidance_scale);
    let start = start.unwrap_or(request.skip_layer_guidance_start);
    let stop = stop.unwrap_or(request.skip_layer_guidance_stop);
    request
        .skip_guidance_layers(blocks)
        .skip_layer_guidance(scale, start, stop)
}

/// The request that `record` describes.
pub(crate) fn from_record(record: &RequestRecord) -> Request {
    let texts = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let mut request = Request::new(record.prompt.iter().cloned())
        .true_cfg_scale(record.true_cfg_scale)
        .height(record.height)
        .width(record.width)
        .num_inference_steps(record.num_inference_steps)
        .guidance_scale(record.guidance_scale)
        .max_sequence_length(record.max_sequence_length)
        .num_images_per_prompt(record.num_images_per_prompt)
        .vae_tiling(record.vae_tiling)
        .allow_non_finite(record.allow_non_finite)
        .seeds(record.seed.iter().copied());
    request.prompt_2 = texts(&record.prompt_2);
    request.negative_prompt = texts(&record.negative_prompt);
    request.negative_prompt_2 = texts(&record.negative_prompt_2);
    request.prompt_3 = texts(&record.prompt_3);
    request.negative_prompt_3 = texts(&record.negative_prompt_3);
    request.clip_skip = record.clip_skip;
    request.scheduler = record.scheduler.clone();
    request.guidance_rescale = record.guidance_rescale;
    request.use_resolution_binning = record.use_resolution_binning;
    request.original_size = record.original_size;
    request.target_size = record.target_size;
    request.crops_coords_top_left = record.crops_coords_top_left;
    request.exact_diffusers = record.exact_diffusers.unwrap_or_default();
    let [scale, start, stop] = [
        record.skip_layer_guidance_scale,
        record.skip_layer_guidance_start,
        record.skip_layer_guidance_stop,
    ];
    skip_layers(request, &record.skip_guidance_layers, scale, start, stop)
}

/// What was run: the request with the pipeline's defaults where it said nothing.
pub(crate) fn to_record(request: &Request, defaults: &Defaults, output: &Output) -> RequestRecord {
    let texts = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    // Without blocks that are left out these numbers mean nothing.
    let skips = |number: f64| (!request.skip_guidance_layers.is_empty()).then_some(number);
    RequestRecord {
        prompt: request.prompt.clone(),
        prompt_2: texts(&request.prompt_2),
        negative_prompt: texts(&request.negative_prompt),
        negative_prompt_2: texts(&request.negative_prompt_2),
        prompt_3: texts(&request.prompt_3),
        negative_prompt_3: texts(&request.negative_prompt_3),
        clip_skip: request.clip_skip,
        scheduler: match (&request.scheduler, defaults.scheduler) {
            (Some(name), _) => Some(name.clone()),
            (None, own) => SchedulerConfig::DIFFUSION
                .contains(&own)
                .then(|| own.into()),
        },
        guidance_rescale: request.guidance_rescale,
        use_resolution_binning: request.use_resolution_binning,
        original_size: request.original_size,
        target_size: request.target_size,
        crops_coords_top_left: request.crops_coords_top_left,
        exact_diffusers: (request.prompt.len() > 1 && request.num_images_per_prompt > 1)
            .then_some(request.exact_diffusers),
        skip_guidance_layers: request.skip_guidance_layers.clone(),
        skip_layer_guidance_scale: skips(request.skip_layer_guidance_scale),
        skip_layer_guidance_start: skips(request.skip_layer_guidance_start),
        skip_layer_guidance_stop: skips(request.skip_layer_guidance_stop),
        true_cfg_scale: request.true_cfg_scale,
        height: output.height,
        width: output.width,
        num_inference_steps: request
            .num_inference_steps
            .unwrap_or(defaults.num_inference_steps),
        guidance_scale: request.guidance_scale.unwrap_or(defaults.guidance_scale),
        max_sequence_length: request
            .max_sequence_length
            .unwrap_or(defaults.max_sequence_length),
        num_images_per_prompt: request.num_images_per_prompt,
        vae_tiling: request.vae_tiling,
        allow_non_finite: request.allow_non_finite,
        seed: request.seeds.clone(),
    }
}

/// The most bytes of one prompt: far above what a text encoder reads (512 tokens).
const MAX_PROMPT_BYTES: usize = 64 << 10;

/// Refuses a prompt that says nothing, which diffusers would draw, and one that is a file by mistake.
///
/// # Errors
/// [`Failure::Usage`], which names `flag`.
pub(crate) fn check_prompt(flag: &str, prompt: &str) -> Result<(), Failure> {
    if prompt.trim().is_empty() {
        return Err(Failure::usage(format!(
            "{flag}: is empty; say what to draw"
        )));
    }
    check_length(flag, prompt)
}

fn check_length(flag: &str, prompt: &str) -> Result<(), Failure> {
    match prompt.len() {
        0..=MAX_PROMPT_BYTES => Ok(()),
        bytes => Err(Failure::usage(format!(
            "{flag}: a prompt of {bytes} bytes; must be at most {MAX_PROMPT_BYTES} (64 KiB)"
        ))),
    }
}

/// Refuses zeros and a wrong number of seeds or texts; the pipeline checks what depends on the model.
///
/// # Errors
/// [`Failure::Usage`] for what no pipeline can serve.
pub(crate) fn check(request: &Request) -> Result<(), Failure> {
    for prompt in &request.prompt {
        check_prompt("--prompt", prompt)?;
    }
    let others = [
        ("--prompt-2", &request.prompt_2),
        ("--prompt-3", &request.prompt_3),
    ];
    for (flag, list) in others {
        for prompt in list.iter().flatten() {
            check_prompt(flag, prompt)?;
        }
    }
    let negative = [
        ("--negative-prompt", &request.negative_prompt),
        ("--negative-prompt-2", &request.negative_prompt_2),
        ("--negative-prompt-3", &request.negative_prompt_3),
    ];
    // Nothing is what diffusers takes when there is no negative prompt.
    for (flag, list) in negative {
        for prompt in list.iter().flatten() {
            check_length(flag, prompt)?;
        }
    }
    let sizes = [
        ("--height", request.height),
        ("--width", request.width),
        ("--num-inference-steps", request.num_inference_steps),
        (
            "--num-images-per-prompt",
            Some(request.num_images_per_prompt),
        ),
        ("--max-sequence-length", request.max_sequence_length),
    ];
    if let Some((flag, _)) = sizes.iter().find(|(_, size)| *size == Some(0)) {
        return Err(Failure::usage(format!("{flag} 0: must be at least 1")));
    }
    let (prompts, images) = (request.prompt.len(), request.image_count());
    let texts = others.iter().chain(&negative).map(|(flag, list)| {
        let given = list.as_ref().map_or(1, Vec::len);
        (*flag, given, prompts, "prompt")
    });
    let counts = texts.chain([("--seed", request.seeds.len(), images, "image")]);
    for (flag, given, all, each) in counts {
        if given != 1 && given != all {
            return Err(Failure::usage(format!(
                "{flag}: {given} values for {all} {each}s; give one, or one for each {each}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::argv::{self, Parsed};
    use crate::args::cli::Command;

    fn request(flags: &[&str]) -> Result<Request, Failure> {
        let words = ["xdit-cli", "generate"].iter().chain(flags).map(Into::into);
        match argv::parse(words)? {
            Parsed::Run(cli) => match cli.command {
                Command::Generate(args) => {
                    let request = from_args(&args.prompts.prompt, &args.call);
                    check(&request)?;
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
                     --crops-coords-top-left 0 9 --exact-diffusers";
        let request = request(&flags.split_whitespace().collect::<Vec<_>>()).unwrap();
        let record = RequestRecord {
            prompt: vec!["a".into(), "b".into()],
            prompt_2: vec!["c".into(), "d".into()],
            negative_prompt: vec!["e".into()],
            negative_prompt_2: vec!["f".into()],
            prompt_3: vec!["g".into(), "h".into()],
            negative_prompt_3: vec!["i".into()],
            clip_skip: 1,
            scheduler: Some("DDIMScheduler".into()),
            guidance_rescale: 0.7,
            use_resolution_binning: Some(false),
            original_size: Some([5, 6]),
            target_size: Some([7, 8]),
            crops_coords_top_left: Some([0, 9]),
            exact_diffusers: Some(true),
            skip_guidance_layers: vec![7, 8, 9],
            skip_layer_guidance_scale: Some(3.),
            skip_layer_guidance_start: Some(0.),
            skip_layer_guidance_stop: Some(0.5),
            true_cfg_scale: 2.,
            height: 64,
            width: 32,
            num_inference_steps: 3,
            guidance_scale: 1.5,
            max_sequence_length: 9,
            num_images_per_prompt: 2,
            vae_tiling: false,
            allow_non_finite: false,
            seed: vec![1, 2, 3, 4],
        };
        assert_eq!(
            format!("{request:?}"),
            format!("{:?}", from_record(&record))
        );
    }

    #[test]
    fn what_nothing_can_serve_is_said_early() {
        let cases: [(&[&str], &str); 7] = [
            (
                &["--prompt", "a", "--prompt-3", "c", "d"],
                "--prompt-3: 2 values",
            ),
            (
                &["--prompt", "a", "--negative-prompt-3", "c", "d"],
                "--negative-prompt-3: 2 values",
            ),
            (&["--prompt", "a", "--width", "0"], "--width 0"),
            (
                &["--prompt", "a", "--num-images-per-prompt", "0"],
                "--num-images-per-prompt 0",
            ),
            (
                &["--prompt", "a", "--seed", "1", "2"],
                "--seed: 2 values for 1 image",
            ),
            (
                &["--prompt", "a", "b", "--prompt-2", "c", "d", "e"],
                "--prompt-2: 3 values",
            ),
            (
                &["--prompt", "a", "--negative-prompt", "c", "d"],
                "--negative-prompt: 2 values",
            ),
        ];
        for (flags, message) in cases {
            let failure = request(flags).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(message), "{failure}");
        }
    }
}
