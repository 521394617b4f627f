//! The shared code of the attack tests: damages the structure of files and runs programs on them.
//!
//! A case is a number, and the same number produces the same files. The program runs as a separate process with a limit on
//! memory and time, so that a stack overflow, a lack of memory or an endless loop is a failure that names its case.

pub mod files;
pub mod json;
pub mod wire;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The most address space that the program gets, in KiB.
const MEMORY_KIB: u64 = 2 << 20;
/// How long a run of the program may take; machines that test are slow and busy.
const LONGEST: Duration = Duration::from_secs(120);
/// The highest documented exit code of an error.
const LAST_CODE: i32 = 6;

/// Numbers that look random and are the same each time (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of the case `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.any() % end.max(1) as u64) as usize
    }

    /// Whether something with a chance of one in `n` happens.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// The cases of one attack: a few that are always the same, or as many as fit in the seconds that `XDIT_ATTACK_SECONDS` gives.
///
/// `XDIT_ATTACK_SEED` is the first case; `case` gives an error for a case that fails.
///
/// # Panics
/// When a case fails, with its number.
pub fn attack(name: &str, few: u64, mut case: impl FnMut(&mut Rng) -> Result<(), String>) {
    let number = |variable: &str| -> Option<u64> {
        let text = std::env::var(variable).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{variable}={text}: a number")),
        )
    };
    let first = number("XDIT_ATTACK_SEED").unwrap_or(1);
    let seconds = number("XDIT_ATTACK_SECONDS").map(Duration::from_secs);
    let start = Instant::now();
    let mut done = 0;
    while match seconds {
        Some(seconds) => start.elapsed() < seconds,
        None => done < few,
    } {
        let seed = first + done;
        // Cases beside each other differ in every number.
        let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        if let Err(error) = case(&mut rng) {
            panic!("{name}, case {seed} (XDIT_ATTACK_SEED={seed} repeats it first): {error}");
        }
        done += 1;
    }
    println!("{name}: {done} cases in {:?}", start.elapsed());
}

/// Runs `program` with `words` in `folder` under the limits. It must succeed, or fail with one line and a documented exit code,
/// and say nothing but plain lines.
///
/// # Errors
/// What it did instead.
pub fn survives(program: &Path, words: &[String], folder: &Path) -> Result<(), String> {
    let [log, results] = ["stderr.txt", "stdout.txt"].map(|name| folder.join(name));
    let create = |path: &Path| File::create(path).map_err(|error| error.to_string());
    let (stderr, stdout) = (create(&log)?, create(&results)?);
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(words)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("RAYON_NUM_THREADS", "2")
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(|error| format!("cannot run: {error}"))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if start.elapsed() > LONGEST => {
                child.kill().ok();
                child.wait().ok();
                return Err(format!("{words:?} took more than {LONGEST:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let said = fs::read(&log).map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&said);
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    let fine = match (status.code(), errors.as_slice()) {
        // Whatever files hold, a line is short and does nothing to a terminal.
        _ if !said.lines().all(xdit_models::quote::is_line) => false,
        (Some(0), []) => true,
        // A picture that is replayed and differs is a result, not an error.
        (Some(1), []) => {
            fs::read_to_string(&results).is_ok_and(|told| told.contains(": different: "))
        }
        (Some(1..=LAST_CODE), [error]) => {
            error.len() < 2000 && !error.contains("fault in xdit-cli")
        }
        _ => false,
    };
    if fine {
        return Ok(());
    }
    let end: String = said.chars().take(2000).collect();
    Err(format!(
        "{words:?} ended with code {:?}, signal {:?}:\n{end}",
        status.code(),
        status.signal()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell script that plays the program comes to.
    fn outcome(script: &str) -> Result<(), String> {
        let folder = std::env::temp_dir().join(format!("attack-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let words = ["-c".to_owned(), script.to_owned()];
        let outcome = survives(Path::new("/bin/sh"), &words, &folder);
        fs::remove_dir_all(&folder).ok();
        outcome
    }

    #[test]
    fn a_program_survives_with_one_line_or_success() {
        assert_eq!(outcome("echo 'warning: x' >&2"), Ok(()));
        assert_eq!(outcome("echo 'error: x' >&2; exit 4"), Ok(()));
        assert_eq!(
            outcome("echo 'a.png: different: 1×1 now 2×2'; exit 1"),
            Ok(())
        );
        for (script, part) in [
            ("kill -ABRT $$", "signal Some(6)"),
            ("kill -KILL $$", "signal Some(9)"),
            (
                "echo 'error: fault in xdit-cli' >&2; exit 1",
                "code Some(1)",
            ),
            ("echo 'error: x' >&2; exit 101", "code Some(101)"),
            (
                "echo 'error: x' >&2; echo 'error: y' >&2; exit 4",
                "code Some(4)",
            ),
            ("exit 4", "code Some(4)"),
            ("exit 1", "code Some(1)"),
            ("echo 'error: x' >&2", "code Some(0)"),
        ] {
            let error = outcome(script).unwrap_err();
            assert!(error.contains(part), "{script}: {error}");
        }
    }

    #[test]
    fn a_case_is_the_same_each_time() {
        let json: serde_json::Value =
            serde_json::from_str(r#"{"a":[1,{"b":"c"}],"d":null}"#).unwrap();
        let damaged = |seed| {
            let mut tree = json::Tree::from(&json);
            tree.damage(&mut Rng::new(seed), &[]);
            tree.text()
        };
        let texts: std::collections::HashSet<_> = (0..200).map(damaged).collect();
        assert!(texts.len() > 100, "{} kinds of damage", texts.len());
        assert!((0..200).all(|seed| damaged(seed) == damaged(seed)));
        assert!(
            texts
                .iter()
                .any(|text| serde_json::from_str::<serde_json::Value>(text).is_err())
        );
    }
}
