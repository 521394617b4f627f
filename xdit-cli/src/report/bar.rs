//! How far a piece of work is: a bar on a terminal, elsewhere a line now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::console::Console;
use crate::run::memory;

/// Work that takes no longer is told in no line.
const SHORT: Duration = Duration::from_secs(10);
/// There is a line whenever a tenth of the work is done, and when none came for so long.
const SILENCE: Duration = Duration::from_secs(30);

/// What a bar counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    /// Steps, tensors, files.
    Pieces,
    /// Bytes.
    Bytes,
    /// Nothing that is known beforehand.
    Unknown,
}

/// A bar for a number of pieces of work. It is gone when it is finished, or dropped. Clones are the same bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar(Arc<BarState>);

#[derive(Debug)]
struct BarState {
    bar: ProgressBar,
    name: &'static str,
    unit: Unit,
    console: Console,
    /// When lines come instead; none on a terminal and with `--quiet`.
    lines: Option<Mutex<LineClock>>,
}

impl Bar {
    /// A bar for `total` pieces of the work `name`.
    pub(crate) fn new(console: &Console, name: &'static str, total: u64, unit: Unit) -> Self {
        let bar = console.add(ProgressBar::new(total));
        let template = match unit {
            Unit::Pieces => "{prefix:8} {bar:30} {pos}/{len}  {elapsed}, {eta} left  {msg}",
            Unit::Bytes => {
                "{prefix:8} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left  {msg}"
            }
            Unit::Unknown => "{prefix:8} {spinner} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(name);
        if console.draws {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        console.standing.begin(name, total);
        let tells = console.tells_lines() && unit != Unit::Unknown;
        Self(Arc::new(BarState {
            bar,
            name,
            unit,
            console: console.clone(),
            lines: tells.then(|| Mutex::new(LineClock::new(Instant::now()))),
        }))
    }

    /// One more piece is done, or several.
    pub(crate) fn inc(&self, pieces: u64) {
        self.0.bar.inc(pieces);
        self.moved();
    }

    /// So many pieces are done.
    pub(crate) fn set_position(&self, done: u64) {
        self.0.bar.set_position(done);
        self.moved();
    }

    /// There are so many pieces.
    pub(crate) fn set_length(&self, total: u64) {
        self.0.bar.set_length(total);
    }

    /// Shows a word behind the bar.
    #[cfg(feature = "hub")] // Only downloads do.
    pub(crate) fn set_message(&self, message: String) {
        self.0.bar.set_message(message);
    }

    fn moved(&self) {
        let shared = &*self.0;
        let (done, total) = (shared.bar.position(), shared.bar.length().unwrap_or(0));
        shared.console.standing.moved(shared.name, done, total);
        let Some(lines) = &shared.lines else { return };
        let now = Instant::now();
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.due(now, done, total) {
            let elapsed = now.duration_since(lines.began);
            let line = line(shared.name, shared.unit, [done, total], elapsed);
            shared.console.note(&line);
        }
    }
}

impl Drop for BarState {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.console.standing.end(self.name);
    }
}

/// `denoise: 12 of 50, 0:35, 1:50 left`.
fn line(name: &str, unit: Unit, [done, total]: [u64; 2], elapsed: Duration) -> String {
    let amounts = match unit {
        Unit::Bytes => [done, total].map(memory::shown),
        _ => [done, total].map(|number| number.to_string()),
    };
    let left = elapsed.as_secs_f64() * (total - done) as f64 / done.max(1) as f64;
    let [elapsed, left] = [elapsed.as_secs(), left as u64].map(clock);
    format!(
        "{name}: {} of {}, {elapsed}, {left} left",
        amounts[0], amounts[1]
    )
}

/// `1:02:03`, `0:35`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Says when a line is due.
#[derive(Debug)]
struct LineClock {
    began: Instant,
    /// When the last line was told, and how many tenths were done then.
    last: Instant,
    tenths: u64,
}

impl LineClock {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            last: now,
            tenths: 0,
        }
    }

    /// Whether there is a line to tell at `now`; not of work that is done, as its result tells that.
    fn due(&mut self, now: Instant, done: u64, total: u64) -> bool {
        if done >= total || now.duration_since(self.began) < SHORT {
            return false;
        }
        let tenths = done.saturating_mul(10) / total;
        let due = tenths > self.tenths || now.duration_since(self.last) >= SILENCE;
        if due {
            (self.last, self.tenths) = (now, tenths);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a line is told of 100 pieces, of which `pace` are done in a second.
    fn told(pace: f64) -> Vec<u64> {
        let began = Instant::now();
        let mut clock = LineClock::new(began);
        let seconds = (100. / pace) as u64;
        let due = (0..=seconds).filter(|second| {
            let done = (*second as f64 * pace) as u64;
            clock.due(began + Duration::from_secs(*second), done, 100)
        });
        due.collect()
    }

    #[test]
    fn a_line_for_each_tenth_or_half_minute_and_none_of_what_is_short() {
        assert_eq!(told(12.), [0; 0]);
        // A tenth every five seconds; what is done when it turns out not to be short is told at once.
        assert_eq!(told(2.), [10, 15, 20, 25, 30, 35, 40, 45]);
        // A tenth every 100 seconds.
        assert_eq!(told(0.1)[..5], [30, 60, 90, 100, 130]);
    }

    #[test]
    fn what_a_line_says() {
        let told =
            |unit, amounts, seconds| line("denoise", unit, amounts, Duration::from_secs(seconds));
        assert_eq!(
            told(Unit::Pieces, [10, 50], 35),
            "denoise: 10 of 50, 0:35, 2:20 left"
        );
        assert_eq!(
            told(Unit::Bytes, [1 << 30, 30 << 30], 300),
            "denoise: 1.0 GiB of 30 GiB, 5:00, 2:25:00 left"
        );
        assert_eq!(
            told(Unit::Pieces, [0, 3], 40),
            "denoise: 0 of 3, 0:40, 2:00 left"
        );
    }
}
