//! The channel from `xdit-cli launch` to the processes that it has started.
//!
//! It is a pipe that `launch` alone writes to. What it has to say comes as lines. When the pipe ends, `launch` has ended, however
//! that happened, and its processes end too: none stays behind.

use std::fmt;
use std::str::FromStr;

/// The variable that names the pipe: `stdin`, or a path such as /dev/fd/7.
pub(crate) const VARIABLE: &str = "XDIT_CONTROL";
/// The value of [`VARIABLE`] of a process whose pipe is its standard input.
pub(crate) const STDIN: &str = "stdin";

/// What `launch` tells a process, as a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// To end by this signal. Signals of `launch` reach processes of other hosts in this way.
    Signal(i32),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => writeln!(f, "signal {signal}"),
        }
    }
}

impl FromStr for Order {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        match line.trim_end().split_once(' ') {
            Some(("signal", number)) => number.parse().map(Self::Signal).map_err(drop),
            _ => Err(()),
        }
    }
}

#[cfg(unix)]
pub(crate) use watch::watch;

#[cfg(unix)]
mod watch {
    use std::fs::File;
    use std::io::{self, BufRead, BufReader, Read};
    use std::time::Duration;

    use signal_hook::consts::SIGTERM;
    use signal_hook::low_level;

    use super::{Order, STDIN, VARIABLE};
    use crate::report::failure::Failure;
    use crate::run::environment::Environment;

    /// How long a process that lost its launcher takes to end in order.
    const GRACE: Duration = Duration::from_secs(5);

    /// Listens to `launch`, in a thread, if it has started this process. Call it when signals have their handlers.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the pipe cannot be opened, or there is no thread for it.
    pub(crate) fn watch(environment: &Environment) -> Result<(), Failure> {
        let Some(place) = environment.var(VARIABLE) else {
            return Ok(());
        };
        let pipe: Box<dyn Read + Send> = match place {
            STDIN => Box::new(io::stdin()),
            path => Box::new(File::open(path).map_err(|error| {
                Failure::usage(format!(
                    "{VARIABLE}={}: {error}: xdit-cli launch sets it for its own processes; unset it elsewhere",
                    xdit_models::quote::shorten(path)
                ))
            })?),
        };
        std::thread::Builder::new()
            .name("launcher".into())
            .spawn(move || {
                for line in BufReader::new(pipe).lines() {
                    match line.map(|line| line.parse()) {
                        Ok(Ok(Order::Signal(signal))) => {
                            // Another number than that of a signal is none of this program's.
                            low_level::raise(signal).ok();
                        }
                        // A newer launcher may say more.
                        Ok(Err(())) => {}
                        Err(_) => break,
                    }
                }
                low_level::raise(SIGTERM).ok();
                std::thread::sleep(GRACE);
                low_level::exit(128 + SIGTERM);
            })
            .map(drop)
            .map_err(|error| xdit_models::refused_thread("the launcher", &error).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let order = Order::Signal(15);
        assert_eq!(order.to_string().parse(), Ok(order));
        for odd in ["", "signal", "signal x", "lost 3", "signal 99999999999"] {
            assert_eq!(odd.parse::<Order>(), Err(()), "{odd}");
        }
    }
}
