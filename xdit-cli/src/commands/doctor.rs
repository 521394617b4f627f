//! `xdit-cli doctor`: what this machine offers, what is missing, and what to do.

use serde_json::json;

use crate::args::launch::DoctorArgs;
use crate::checks::finding::{self, CheckState};
use crate::checks::machine;
use crate::report::console;
use crate::report::failure::Failure;
use crate::run::session::Session;

/// The lines of a screen that the command fills at most.
const SCREEN: usize = 24;
/// The exit code where settings contradict each other, as for a flag with a wrong value.
const CONTRADICTION: u8 = 2;

/// Prints a screenful, or one JSON object.
///
/// # Errors
/// [`Failure::Stdout`] if nothing can be printed.
pub(crate) fn run(_: &DoctorArgs, session: &Session) -> Result<u8, Failure> {
    session.begin_trace()?;
    let findings = machine::findings(&session.environment);
    let version = concat!("xdit-cli ", env!("CARGO_PKG_VERSION"));
    match session.report.json {
        true => console::print_json(&json!({
            "version": version,
            "system": std::env::consts::OS,
            "architecture": std::env::consts::ARCH,
            "checks": finding::json_of(&findings),
        }))?,
        false => {
            let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
            let mut text = format!("{version} on {system}, {architecture}\n");
            for line in finding::lines_of(&findings, SCREEN - 1) {
                text += &line;
                text.push('\n');
            }
            console::print(&text)?;
        }
    }
    let is_wrong = findings.iter().any(|it| it.state == CheckState::Wrong);
    Ok(if is_wrong { CONTRADICTION } else { 0 })
}
