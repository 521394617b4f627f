//! `xdit-cli replay`: runs again what a PNG records, and compares.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use xdit_kernels::{DType, Device, Tier};
use xdit_models::{Degrees, Image, ModelSource, Parallel, RankBackend, Request, RunPlan, quote};

use crate::args::cli::ReplayArgs;
use crate::args::device::{ChosenDevice, DeviceChoice, DeviceSettings, processor};
use crate::args::model::HubArgs;
use crate::args::output::OutputFormat;
use crate::args::ranks::ParallelArgs;
use crate::launch::{HostShare, ProcessJob, WorldRequest};
use crate::output::files::OutputPlan;
use crate::output::picture::{self, Comparison, Difference};
use crate::output::places::Places;
use crate::output::record::RunRecord;
use crate::output::recorded::Recorded;
use crate::report::console;
use crate::report::failure::{Failure, shown};
use crate::report::progress::RunObserver;
use crate::report::voice;
use crate::run::again::draw_parts;
use crate::run::compute::Compute;
use crate::run::draw::{draw, plan as plan_of};
use crate::run::model::{FoundModel, PlanFor};
use crate::run::model_choice::{self, ModelChoice};
use crate::run::session::Session;

/// Repeats the run of `args.image`. Returns 0 if the pixels are identical, 1 if not.
///
/// # Errors
/// Any [`Failure`].
pub(crate) fn run(args: &ReplayArgs, session: &Session, job: &ProcessJob) -> Result<u8, Failure> {
    let mut watch = RunObserver::new(&session.console, None);
    let damaged = |failure: Failure| damaged(&args.image, failure);
    let (recorded, device) = open(args, session, &mut watch, job)?;
    let record = &recorded.record;
    // Of ranks that are processes, each has read the picture.
    let prepared = prepare(args, record, session);
    let (request, dtype, plan) = job.agree(prepared, |_| record.to_json())?;
    let mut parallel = parallel(record);
    if let Some(world) = job.world() {
        parallel.backend = RankBackend::Group(world.group().clone());
    }
    let parts = record.parts();
    if parts.len() > 1 && job.place().is_some() {
        let image = shown(&args.image);
        return Err(Failure::usage(format!(
            "{image}: ranks of several plans drew it (--on-rank-loss replan): replay it without a launcher"
        )));
    }
    let mut compute = Compute {
        dtype,
        allow_tf32: record.allow_tf32,
        unused: Vec::new(),
        threads: session.threads(&args.threads, job.world().map(|world| world.share())),
        low_memory: false,
        parallel: device.spread(parallel),
        device,
        processes: Vec::new(),
    };
    let variant = args.hub.variant.as_ref().or(record.model.variant.as_ref());
    let variant = variant.map(String::as_str);
    let plan_for =
        |source: &ModelSource, compute: &Compute| plan_of(source, variant, &request, compute, None);
    let found = find_model(
        args,
        record,
        &|source| plan_for(source, &compute),
        (session, job),
    );
    let found = found.map_err(damaged);
    let (model, mut planned) = job.agree(found, |(model, _)| model.record.digest.clone())?;
    if job.world().is_some() {
        compute.arrange(&planned, job)?;
        planned = plan_for(&model.source, &compute)?;
    }
    if model.record.digest != record.model.digest {
        let name = &model.record.name;
        watch.warn(format!(
            "the files of {} are not those that the image was made with (other digest)",
            quote::name(name)
        ));
    }
    let same_size = (planned.width, planned.height) == (recorded.width, recorded.height);
    if same_size {
        // A damaged picture is reported before the run.
        recorded.each_row(|_| ())?;
    }
    // They are about flags of the recorded run, whose user was told.
    planned.warnings.clear();
    let drawn = match parts.len() {
        1 => draw(&model, planned, &compute, &mut watch, job),
        _ => {
            let plan = |compute: &Compute| plan_for(&model.source, compute);
            draw_parts(&model, parts, &plan, &compute, &mut watch)
        }
    };
    let drawn = drawn.map_err(damaged)?;
    if !job.speaks() {
        // Rank 0 compares.
        return Ok(0);
    }
    let Some(image) = drawn.output.images.get(record.image) else {
        let reason = format!(
            "damaged record: image {} of {}",
            record.image,
            drawn.output.images.len()
        );
        return Err(Failure::no_record(&args.image, reason));
    };
    let difference = match same_size {
        true => Some(compare(&recorded, image)?),
        false => None,
    };
    let file = match &plan {
        Some(plan) => Some(job.rest(|| {
            let record = drawn.record_of(record.image);
            plan.write(0, |file| picture::write(image, file, Some(&record)))
        })?),
        None => None,
    };
    let identical = difference.is_some_and(|d| d.bytes == 0);
    if session.report.json {
        let mut report = drawn.report(session, &watch);
        report["image"] = json!(args.image);
        report["file"] = json!(file);
        report["identical"] = json!(identical);
        // JSON has no infinity: identical pictures have no PSNR.
        let psnr = difference.map(|d| d.psnr).filter(|psnr| psnr.is_finite());
        report["difference"] = json!(
            difference.map(|d| json!({"bytes": d.bytes, "max_abs": d.max_abs, "psnr_db": psnr}))
        );
        console::print_json(&report)?;
    } else if !session.report.quiet {
        let verdict = verdict(difference, &recorded, image);
        console::print(&format!(
            "{}: {verdict}; {}\n",
            shown(&args.image),
            drawn.summary(session, &watch)
        ))?;
    }
    Ok(u8::from(!identical))
}

/// Opens the picture, and the device that it was made on. If the ranks are processes, they come together.
fn open(
    args: &ReplayArgs,
    session: &Session,
    watch: &mut RunObserver,
    job: &ProcessJob,
) -> Result<(Recorded, ChosenDevice), Failure> {
    let tier = args.threads.cpu_tier;
    let Some(place) = job.place() else {
        let recorded = Recorded::open(&args.image)?;
        let device = device(tier, &recorded.record, (session, None), watch)?;
        return Ok((recorded, device));
    };
    let mut opened = None;
    let mut open = |share: &HostShare| {
        // A picture that a rank cannot read is told to all of them here, and so is one of other ranks.
        let recorded = Recorded::open(&args.image)?;
        job.check(parallel(&recorded.record).degrees)?;
        let share = Some(share.local_rank);
        let device = device(tier, &recorded.record, (session, share), watch)?;
        opened = Some(recorded);
        Ok(device)
    };
    let request = WorldRequest {
        degrees: Degrees {
            data: place.world_size,
            ..Degrees::default()
        },
        plan: &json!({"replay": args.image, "model": args.model}),
        limit: Duration::from_secs(ParallelArgs::RANK_TIMEOUT),
        replans: false,
        environment: &session.environment,
    };
    let device = job.join(&request, &mut open)?.map(|(_, device)| device);
    match (opened, device) {
        (Some(recorded), Some(device)) => Ok((recorded, device)),
        _ => unreachable!("a job of several processes opens its device"),
    }
}

/// Checks the record, and chooses the file for the new picture.
fn prepare(
    args: &ReplayArgs,
    record: &RunRecord,
    session: &Session,
) -> Result<(Request, DType, Option<OutputPlan>), Failure> {
    let damaged = |failure: Failure| damaged(&args.image, failure);
    let request = record
        .checked()
        .map_err(damaged)?
        .exact_diffusers(record.exact_diffusers())
        .allow_non_finite(record.request.allow_non_finite || args.allow_non_finite);
    let mut places = session.places.clone();
    if args.model.is_none()
        && let Some(folder) =
            model_choice::folder_of(&record.model.name, &args.hub, &session.environment)
    {
        places.add_model("the recorded model", &folder)?;
    }
    let plan = output_plan(args, request.seeds[0], session, &places)?;
    session.begin_trace()?;
    Ok((request, record.dtype().map_err(damaged)?, plan))
}

/// The ranks of the record.
fn parallel(record: &RunRecord) -> Parallel {
    // There is a first part always.
    record.parts().swap_remove(0).1
}

/// The file for the new picture, if one is wanted and this rank writes.
fn output_plan(
    args: &ReplayArgs,
    seed: i128,
    session: &Session,
    places: &Places,
) -> Result<Option<OutputPlan>, Failure> {
    let Some(path) = args.output.as_ref().filter(|_| !voice::is_silent()) else {
        return Ok(None);
    };
    let (kind, partials) = (OutputFormat::Png, &session.partials);
    let plan = OutputPlan::new(Some(path), kind, 1, seed, partials, places)?;
    if plan.is_stdout() {
        return Err(Failure::usage(
            "--output -: replay writes its result to standard output; give the name of a file",
        ));
    }
    plan.check()?;
    Ok(Some(plan))
}

/// Converts the error of an invalid request: its values come from the record, not from a flag.
fn damaged(image: &Path, failure: Failure) -> Failure {
    match failure.exit_code() {
        2 if !matches!(failure, Failure::OfRank { .. }) => {
            Failure::no_record(image, format!("damaged record: {failure}"))
        }
        _ => failure,
    }
}

/// Compares the pixels of the file with the new ones.
fn compare(recorded: &Recorded, image: &Image) -> Result<Difference, Failure> {
    let mut comparison = Comparison::default();
    let mut now = image.rgb.chunks(3 * image.width.max(1));
    recorded.each_row(|row| comparison.add(row, now.next().unwrap_or_default()))?;
    Ok(comparison.difference())
}

fn verdict(difference: Option<Difference>, recorded: &Recorded, replayed: &Image) -> String {
    match difference {
        Some(d) if d.bytes == 0 => "identical".into(),
        Some(d) => format!(
            "different: {} of {} bytes, by at most {}, PSNR {:.1} dB",
            d.bytes,
            replayed.rgb.len(),
            d.max_abs,
            d.psnr
        ),
        None => format!(
            "different: {}×{} now {}×{}",
            recorded.width, recorded.height, replayed.width, replayed.height
        ),
    }
}

/// Returns the pipeline of the flags, or else that of the record.
fn find_model(
    args: &ReplayArgs,
    record: &RunRecord,
    plan: PlanFor<'_>,
    (session, job): (&Session, &ProcessJob),
) -> Result<(FoundModel, RunPlan), Failure> {
    let no_t5 = record.model.no_t5;
    if let Some(name) = &args.model {
        let hub = &args.hub;
        return FoundModel::find(ModelChoice { name, hub, no_t5 }, plan, session, job);
    }
    let given = &args.hub;
    let hub = HubArgs {
        revision: given
            .revision
            .clone()
            .or_else(|| record.model.revision.clone()),
        variant: given
            .variant
            .clone()
            .or_else(|| record.model.variant.clone()),
        download_dir: given.download_dir.clone(),
    };
    let wanted = ModelChoice {
        name: &record.model.name,
        hub: &hub,
        no_t5,
    };
    FoundModel::find(wanted, plan, session, job)
}

/// Returns the devices of the record, at least one: GPUs, or the processor with the tier of the record. A tier that is asked for
/// is the processor's. What this machine lacks is replaced by the processor's best tier, with a warning.
fn device(
    asked: Option<Tier>,
    record: &RunRecord,
    (session, local_rank): (&Session, Option<usize>),
    watch: &mut RunObserver,
) -> Result<ChosenDevice, Failure> {
    let one = |device| ChosenDevice::of(vec![device]);
    if let Some(tier) = asked {
        if let Ok(DeviceChoice::Cuda(_)) = record.device.parse() {
            watch.warn(
                "the image was made on a GPU, and --cpu-tier repeats it on the processor, so the last bits may differ"
                    .to_owned(),
            );
        }
        return processor(Some(tier)).map(one);
    }
    if let Ok(gpu @ DeviceChoice::Cuda(_)) = record.device.parse() {
        // Of several processes, each has a GPU of its own.
        let gpu = match local_rank {
            Some(_) => DeviceChoice::CudaOfRank,
            None => gpu,
        };
        let settings = DeviceSettings {
            tier: None,
            allow_tf32: record.allow_tf32,
            local_rank,
            environment: &session.environment,
        };
        return gpu.open(settings).or_else(|reason| {
            watch.warn(format!(
                "the image was made on a GPU, and the processor repeats it, so the last bits may differ ({reason})"
            ));
            processor(None).map(one)
        });
    }
    let recorded = &record.tier;
    match recorded.parse() {
        Ok(tier) => processor(Some(tier)).map(one),
        Err(_) => {
            let device = Device::cpu();
            watch.warn(format!(
                "the image was made with {} instructions, which this processor lacks: with {} the last bits may differ",
                quote::shorten(recorded),
                device.tier()
            ));
            Ok(one(device))
        }
    }
}
