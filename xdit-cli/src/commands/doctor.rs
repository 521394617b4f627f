//! `xdit-cli doctor`: what this machine offers, what is missing, and what to do; on several ranks, how fast they exchange messages.

use std::time::Duration;

use serde_json::json;
use xdit_models::{Degrees, quote};

use crate::args::device::{DeviceChoice, DeviceSettings};
use crate::args::launch::DoctorArgs;
use crate::checks::finding::{self, CheckState, Finding};
use crate::checks::links::{self, LinkReport};
use crate::checks::machine;
use crate::launch::{HostShare, ProcessJob, WorldRequest};
use crate::report::console;
use crate::report::failure::Failure;
use crate::run::session::Session;

/// The lines of a screen that the command fills at most.
const SCREEN: usize = 24;
/// The exit code where settings contradict each other, as for a flag with a wrong value.
const CONTRADICTION: u8 = 2;
/// How long ranks wait for each other.
const LIMIT: Duration = Duration::from_secs(60);

/// Prints a screenful, or one JSON object. `job` is the job of this process, or what is wrong with the variables of its launcher.
///
/// # Errors
/// [`Failure::Stdout`] if nothing can be printed. If the ranks of a job do not come together, the errors of
/// [`ProcessJob::join`], which rank 0 prints below the rest.
pub(crate) fn run(
    args: &DoctorArgs,
    session: &Session,
    job: Result<&ProcessJob, &Failure>,
) -> Result<u8, Failure> {
    session.begin_trace()?;
    let links = match job {
        Ok(job) => measured(&args.device, session, job),
        Err(_) => Ok(None),
    };
    if job.is_ok_and(|job| !job.speaks()) {
        return links.map(|_| 0);
    }
    let mut findings = machine::findings(&session.environment);
    findings.push(launch(job));
    let is_wrong = findings.iter().any(|it| it.state == CheckState::Wrong);
    let (links, failure) = match links {
        Ok(links) => (links, None),
        Err(failure) => (None, Some(failure)),
    };
    match session.report.json {
        true => {
            let mut report = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "system": std::env::consts::OS,
                "architecture": std::env::consts::ARCH,
                "checks": finding::json_of(&findings),
                "links": links.as_ref().map(LinkReport::json),
            });
            // One object, whatever happened.
            if let Some(failure) = &failure {
                let (message, code) = (quote::line(&failure.to_string()), failure.exit_code());
                report["error"] = json!({"message": message, "exit_code": code});
                console::print_json(&report)?;
                console::eprint_line(&format!("error: {message}"));
                if let Ok(job) = job {
                    job.note_failure(Some(message));
                }
                return Ok(code);
            }
            console::print_json(&report)?;
        }
        false => console::print(&screen(&findings, links.as_ref()))?,
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(if is_wrong { CONTRADICTION } else { 0 }),
    }
}

/// The findings and the links in the lines of a screen.
fn screen(findings: &[Finding], links: Option<&LinkReport>) -> String {
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let version = env!("CARGO_PKG_VERSION");
    let links = links.map(LinkReport::text).unwrap_or_default();
    let mut text = format!("xdit-cli {version} on {system}, {architecture}\n");
    for line in finding::lines_of(findings, SCREEN - 1 - links.lines().count()) {
        text += &line;
        text.push('\n');
    }
    text + &links
}

/// The links between the ranks of a job; none if this process is alone.
fn measured(
    device: &DeviceChoice,
    session: &Session,
    job: &ProcessJob,
) -> Result<Option<LinkReport>, Failure> {
    let Some(place) = job.place() else {
        return Ok(None);
    };
    let request = WorldRequest {
        degrees: Degrees {
            ulysses: place.world_size,
            ..Degrees::default()
        },
        plan: &json!({"command": "doctor"}),
        limit: LIMIT,
        replans: false,
        environment: &session.environment,
    };
    let mut open = |share: &HostShare| {
        device.clone().open(DeviceSettings {
            tier: None,
            allow_tf32: false,
            local_rank: Some(share.local_rank),
            environment: &session.environment,
        })
    };
    let Some((world, device)) = job.join(&request, &mut open)? else {
        return Ok(None);
    };
    let report = links::measure(world.group(), &device.device, world.host_numbers());
    Ok(Some(report?))
}

/// Who has started this process.
fn launch(job: Result<&ProcessJob, &Failure>) -> Finding {
    let job = match job {
        Ok(job) => job,
        Err(failure) => {
            let cure = "start again by one launcher, or set XDIT_LAUNCH=0 to run alone";
            return Finding::wrong("launch", failure.to_string(), cure, json!(null));
        }
    };
    let Some(place) = job.place() else {
        return Finding::fine("launch", "this process is alone", json!(null));
    };
    let data = json!({
        "launcher": place.launcher.to_string(),
        "rank": place.rank,
        "world_size": place.world_size,
        "local_rank": place.local_rank,
        "local_world_size": place.local_world_size,
        "host": place.host,
        "rendezvous": place.rendezvous.to_string(),
        "restart": place.restart,
    });
    let found = format!(
        "{}: rank {} of {} on {}, which meet at {}",
        place.launcher,
        place.rank,
        place.world_size,
        quote::name(&place.host),
        place.rendezvous
    );
    Finding::fine("launch", found, data)
}
