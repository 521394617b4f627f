//! `xdit-cli replay`: runs again what a PNG records, and compares.

use serde_json::json;
use xdit_kernels::{DType, Device, Tier};
use xdit_models::quote;

use crate::args::{HubArgs, OutputType, ReplayArgs};
use crate::console;
use crate::draw::{Compute, draw};
use crate::failure::{Failure, shown};
use crate::model::{Check, Model, Wanted};
use crate::output::OutputPlan;
use crate::picture::{Difference, Picture};
use crate::record::{ParallelRecord, RunRecord};
use crate::request;
use crate::session::Session;
use crate::watch::Watch;

/// Repeats the run of `args.image`. Returns 0 if the pixels are identical, 1 if not.
///
/// # Errors
/// Any [`Failure`].
pub(crate) fn run(args: &ReplayArgs, session: &Session) -> Result<u8, Failure> {
    let (recorded, record) = Picture::read(&args.image)?;
    let request = request::from_record(&record.request)
        .exact_diffusers(record.exact_diffusers())
        .allow_non_finite(record.request.allow_non_finite || args.allow_non_finite);
    let seed = record.request.seed.first().copied().unwrap_or_default();
    let plan = match &args.output {
        Some(path) => Some(OutputPlan::new(
            Some(path),
            OutputType::Png,
            1,
            seed,
            &session.partials,
        )?),
        None => None,
    };
    let mut watch = Watch::new(&session.console, None);
    let model = find_model(args, &record, session)?;
    if model.record.digest != record.model.digest {
        let name = quote::name(&model.record.name);
        watch.warn(format!(
            "the files of {name} are not those that the image was made with (other digest)"
        ));
    }
    let compute = Compute {
        dtype: dtype(&record).map_err(|reason| Failure::no_record(&args.image, reason))?,
        device: device(args.threads.cpu_tier, &record.tier, &mut watch),
        threads: session.threads(&args.threads),
        low_memory: false,
        parallel: record
            .parallel
            .as_ref()
            .map_or_else(Default::default, ParallelRecord::parallel),
    };
    let drawn = draw(&model, &request, &compute, &mut watch).map_err(|failure| match failure {
        // The record gave these values, not a flag.
        Failure::Usage(reason) => {
            Failure::no_record(&args.image, format!("damaged record: {reason}"))
        }
        other => other,
    })?;
    let Some(image) = drawn.output.images.get(record.image) else {
        let reason = format!(
            "damaged record: image {} of {}",
            record.image,
            drawn.output.images.len()
        );
        return Err(Failure::no_record(&args.image, reason));
    };
    let replayed = Picture {
        width: image.width,
        height: image.height,
        rgb: image.rgb.clone(),
    };
    let file = match &plan {
        Some(plan) => Some(plan.write(0, |file| {
            replayed.write(file, Some(&drawn.record_of(record.image)))
        })?),
        None => None,
    };
    let difference = Difference::between(&recorded, &replayed);
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
        let verdict = verdict(difference, &recorded, &replayed);
        console::print(&format!(
            "{}: {verdict}; {}\n",
            shown(&args.image),
            drawn.summary(session, &watch)
        ))?;
    }
    Ok(u8::from(!identical))
}

fn verdict(difference: Option<Difference>, recorded: &Picture, replayed: &Picture) -> String {
    match difference {
        Some(d) if d.bytes == 0 => "identical".into(),
        Some(d) => format!(
            "different: {} of {} bytes, by at most {}, PSNR {:.1} dB",
            d.bytes,
            recorded.rgb.len(),
            d.max_abs,
            d.psnr
        ),
        None => format!(
            "different: {}×{} now {}×{}",
            recorded.width, recorded.height, replayed.width, replayed.height
        ),
    }
}

/// The pipeline of the flags, else that of the record.
fn find_model(args: &ReplayArgs, record: &RunRecord, session: &Session) -> Result<Model, Failure> {
    // What is recorded was drawn once: it is no bad request.
    let any: Check<'_> = &|_| Ok(());
    let no_t5 = record.model.no_t5;
    if let Some(name) = &args.model {
        let hub = &args.hub;
        return Model::find(Wanted { name, hub, no_t5 }, any, session);
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
    let wanted = Wanted {
        name: &record.model.name,
        hub: &hub,
        no_t5,
    };
    Model::find(wanted, any, session)
}

fn dtype(record: &RunRecord) -> Result<DType, String> {
    let dtypes = [DType::F32, DType::BF16, DType::F16];
    let found = dtypes
        .into_iter()
        .find(|dtype| dtype.to_string() == record.dtype);
    found.ok_or_else(|| format!("damaged record: dtype {}", quote::shorten(&record.dtype)))
}

/// The tier of the flag, else that of the record, else this processor's best, with a warning.
fn device(asked: Option<Tier>, recorded: &str, watch: &mut Watch) -> Device {
    if let Some(tier) = asked {
        return Device::Cpu(tier);
    }
    match recorded.parse() {
        Ok(tier) => Device::Cpu(tier),
        Err(_) => {
            let device = Device::cpu();
            let recorded = quote::shorten(recorded);
            watch.warn(format!(
                "the image was made with {recorded} instructions, which this processor lacks: with {} the last bits may \
                 differ",
                device.tier()
            ));
            device
        }
    }
}
