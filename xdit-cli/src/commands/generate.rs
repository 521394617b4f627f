//! `xdit-cli generate`: flags to request, request to files.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use xdit_kernels::Tensor;
use xdit_models::ModelSource;

use crate::args::cli::{GenerateArgs, OutputType};
use crate::args::request;
use crate::commands::batch;
use crate::output::dump::Dump;
use crate::output::files::OutputPlan;
use crate::output::partial::system_reason;
use crate::output::picture::Picture;
use crate::output::tensor_file::{self, Data, Entry};
use crate::report::console;
use crate::report::failure::{self, Failure};
use crate::report::progress::Progress;
use crate::run::draw::{Compute, Drawn, draw, plan as plan_of};
use crate::run::model::{Model, Wanted};
use crate::run::session::Session;

/// Draws what the flags ask for. Everything that can be refused without the model is refused first.
///
/// # Errors
/// Any [`Failure`].
pub(crate) fn run(args: &GenerateArgs, session: &Session) -> Result<u8, Failure> {
    let kind = args.output.output_type;
    let mut request = request::from_args(&args.prompts.prompt, &args.call);
    // The lines of a prompt file are checked one by one.
    if args.prompts.prompt_file.is_none() {
        request::check(&request)?;
    }
    request = request
        .vae_tiling(args.run.vae_tiling)
        .allow_non_finite(args.output.allow_non_finite);
    if kind == OutputType::Latent {
        request = request.output(xdit_models::OutputType::Latent);
    }
    let compute = Compute {
        dtype: args.run.dtype.into(),
        device: args.run.device.open(args.run.threads.cpu_tier)?,
        threads: session.threads(&args.run.threads),
        low_memory: args.run.low_memory,
        parallel: args.parallel.plan()?,
    };
    let images = request.image_count();
    let output = args.output.output.as_deref();
    let (partials, places) = (&session.partials, &session.places);
    let plan = OutputPlan::new(output, kind, images, request.seeds[0], partials, places)?;
    if let Some(file) = &args.prompts.prompt_file {
        return batch::run(args, file, &request, &compute, &plan, session);
    }
    let dump = match &args.output.dump {
        Some(folder) => Some(Dump::create(folder, &session.partials)?),
        None => None,
    };
    session.begin_trace()?;
    let mut watch = Progress::new(&session.console, dump);
    let hub = &args.model.hub;
    let check = |source: &ModelSource| {
        plan_of(source, hub.variant.as_deref(), &request, &compute, None).map(drop)
    };
    let model = Model::find(Wanted::new(&args.model), &check, session)?;
    let drawn = draw(&model, &request, &compute, &mut watch)?;

    let write_began = Instant::now();
    let files = write(&drawn, kind, !args.output.no_metadata, &plan)?;
    tracing::info!(
        seconds = write_began.elapsed().as_secs_f64(),
        files = files.len(),
        "written"
    );
    if session.report.json {
        let mut report = drawn.report(session, &watch);
        report["files"] = json!(files);
        report["output_type"] = json!(format!("{kind:?}").to_lowercase());
        console::print_json(&report)?;
    } else if !session.report.quiet {
        console::print(&format!(
            "{}: {}\n",
            shown(&files),
            drawn.summary(session, &watch)
        ))?;
    }
    Ok(0)
}

/// Writes the results of a run. Returns the names of the files.
pub(crate) fn write(
    drawn: &Drawn,
    kind: OutputType,
    metadata: bool,
    plan: &OutputPlan,
) -> Result<Vec<PathBuf>, Failure> {
    let output = &drawn.output;
    match kind {
        OutputType::Png => output
            .images
            .iter()
            .enumerate()
            .map(|(index, image)| {
                let record = metadata.then(|| drawn.record_of(index));
                let picture = Picture {
                    width: image.width,
                    height: image.height,
                    rgb: image.rgb.clone(),
                };
                plan.write(index, |file| picture.write(file, record.as_ref()))
            })
            .collect(),
        OutputType::Latent => write_tensor(drawn, "latents", &output.latents, metadata, plan),
        OutputType::Float => {
            let float = output
                .float
                .as_ref()
                .ok_or_else(|| Failure::usage("the pipeline returned no image"))?;
            write_tensor(drawn, "image", float, metadata, plan)
        }
    }
}

fn write_tensor(
    drawn: &Drawn,
    name: &str,
    tensor: &Tensor,
    metadata: bool,
    plan: &OutputPlan,
) -> Result<Vec<PathBuf>, Failure> {
    let texts: Vec<(&str, String)> = match metadata {
        true => vec![("xdit", drawn.record.to_json())],
        false => Vec::new(),
    };
    let path = plan.write(0, |file| {
        let mut file = std::io::BufWriter::new(file);
        let entries = [Entry {
            name,
            data: Data::Tensor(tensor),
        }];
        let written = tensor_file::write(&mut file, &entries, &texts).and_then(|()| file.flush());
        written.map_err(|e| system_reason(&e))
    })?;
    Ok(vec![path])
}

/// The names of files in a line: the first and the last of many.
pub(crate) fn shown(files: &[PathBuf]) -> String {
    match files {
        [] => String::new(),
        [one] => failure::shown(one),
        [first, .., last] => format!(
            "{} … {} ({} files)",
            failure::shown(first),
            failure::shown(last),
            files.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_are_one_phrase() {
        let files: Vec<PathBuf> = (0..3).map(|i| format!("a_{i}.png").into()).collect();
        assert_eq!(shown(&files[..1]), "a_0.png");
        assert_eq!(shown(&files), "a_0.png … a_2.png (3 files)");
        assert_eq!(shown(&["a\nb.png".into()]), r"a\nb.png");
    }
}
