//! The channel between `xdit-cli launch` and the processes that it has started.
//!
//! A process hears from `launch` on a pipe that `launch` alone writes to. What it has to say comes as lines. When the pipe ends,
//! `launch` has ended, however that happened, and its processes end too: none stays behind. Where ranks go on without a lost one, a
//! process also has a place for words of its own to `launch`.

use std::fmt;
use std::str::FromStr;

use xdit_models::quote;

/// The variable that names the pipe: `stdin`, or a path such as /dev/fd/7.
pub(crate) const VARIABLE: &str = "XDIT_CONTROL";
/// The value of [`VARIABLE`] of a process whose pipe is its standard input.
pub(crate) const STDIN: &str = "stdin";
/// The variable that names the place for words to `launch`: `stderr`, or a path such as /dev/fd/8.
pub(crate) const REPORT: &str = "XDIT_REPORT";
/// The value of [`REPORT`] of a process whose words are lines of its standard error, which begin with [`MARK`].
pub(crate) const STDERR: &str = "stderr";
/// The beginning of a line of standard error that is for `launch`.
pub(crate) const MARK: &str = "xdit-cli to launch: ";

/// What `launch` tells a process, as a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// To end by this signal. Signals of `launch` reach processes of other hosts in this way.
    Signal(i32),
    /// To go on without ranks that are lost.
    Regroup(Regroup),
}

/// The ranks that are left, and where they meet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Regroup {
    /// How often ranks have come together before.
    pub round: u64,
    /// The host of the first of them, as the others know it.
    pub host: String,
    /// Where the first of them listens.
    pub port: u16,
    /// Their numbers, in order.
    pub ranks: Vec<usize>,
}

/// What a process tells `launch`, as a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Word {
    /// Its number on its host.
    Pid(u32),
    /// It has left the ranks of this round, because one is lost or the ranks do not come together, and waits.
    Left {
        /// How often ranks have come together before.
        round: u64,
        /// The rank that is lost, and why.
        lost: Option<(usize, String)>,
    },
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => writeln!(f, "signal {signal}"),
            Self::Regroup(to) => {
                let (round, host, port) = (to.round, &to.host, to.port);
                let ranks: Vec<String> = to.ranks.iter().map(usize::to_string).collect();
                writeln!(f, "regroup {round} {host} {port} {}", ranks.join(","))
            }
        }
    }
}

impl FromStr for Order {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["signal", number] => number.parse().map(Self::Signal).map_err(drop),
            ["regroup", round, host, port, ranks] => {
                let ranks = ranks.split(',').map(str::parse).collect::<Result<_, _>>();
                Ok(Self::Regroup(Regroup {
                    round: round.parse().map_err(drop)?,
                    host: host.to_owned(),
                    port: port.parse().map_err(drop)?,
                    ranks: ranks.map_err(drop)?,
                }))
            }
            _ => Err(()),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => writeln!(f, "pid {pid}"),
            Self::Left { round, lost: None } => writeln!(f, "left {round}"),
            Self::Left {
                round,
                lost: Some((rank, reason)),
            } => writeln!(f, "left {round} {rank} {}", quote::line(reason)),
        }
    }
}

impl FromStr for Word {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut words = line.trim_end().splitn(4, ' ');
        let mut next = || words.next();
        fn number<N: FromStr>(word: Option<&str>) -> Result<N, ()> {
            word.and_then(|word| word.parse().ok()).ok_or(())
        }
        match next() {
            Some("pid") => Ok(Self::Pid(number(next())?)),
            Some("left") => Ok(Self::Left {
                round: number(next())?,
                lost: match next() {
                    None => None,
                    rank => Some((number(rank)?, next().unwrap_or_default().to_owned())),
                },
            }),
            _ => Err(()),
        }
    }
}

#[cfg(unix)]
pub(crate) use watch::{LauncherLine, watch};

/// Without Unix there is no `launch`.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) enum LauncherLine {}

#[cfg(not(unix))]
impl LauncherLine {
    pub(crate) fn regrouped(&self, _: u64, _: Option<(usize, String)>) -> Option<Regroup> {
        match *self {}
    }
}

#[cfg(unix)]
mod watch {
    use std::fs::File;
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::sync::mpsc::{self, Receiver};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use signal_hook::consts::SIGTERM;
    use signal_hook::low_level;

    use super::{MARK, Order, REPORT, Regroup, STDERR, STDIN, VARIABLE, Word};
    use crate::report::failure::{Failure, system_reason};
    use crate::run::environment::Environment;

    /// How long a process that lost its launcher takes to end in order.
    const GRACE: Duration = Duration::from_secs(5);

    /// Where a process speaks to `launch`, and what it hears about other ranks.
    #[derive(Debug)]
    pub(crate) struct LauncherLine {
        /// `None` is standard error.
        words: Option<File>,
        orders: Mutex<Receiver<Regroup>>,
    }

    impl LauncherLine {
        /// Tells `launch` that this process has left the ranks of `round`, and why, and waits until `launch` says who goes on.
        /// `None` if it never will: it has ended, and this process is about to.
        pub(crate) fn regrouped(
            &self,
            round: u64,
            lost: Option<(usize, String)>,
        ) -> Option<Regroup> {
            self.say(&Word::Left { round, lost }).ok()?;
            let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            // One of an earlier round was for ranks that did not come together.
            orders.iter().find(|order| order.round > round)
        }

        fn say(&self, word: &Word) -> io::Result<()> {
            match self.words.as_ref() {
                Some(mut file) => file.write_all(word.to_string().as_bytes()),
                // In one piece, so that no other line comes between.
                None => io::stderr().write_all(format!("{MARK}{word}").as_bytes()),
            }
        }
    }

    fn refused(variable: &str, path: &str, error: &io::Error) -> Failure {
        Failure::usage(format!(
            "{variable}={}: {}: xdit-cli launch sets it for its own processes; unset it elsewhere",
            xdit_models::quote::shorten(path),
            system_reason(error)
        ))
    }

    /// Listens to `launch`, in a thread, if it has started this process. Call it when signals have their handlers. Returns the place
    /// for words to `launch`, if there is one.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a pipe cannot be opened, or there is no thread for it.
    pub(crate) fn watch(environment: &Environment) -> Result<Option<LauncherLine>, Failure> {
        let Some(place) = environment.var(VARIABLE) else {
            return Ok(None);
        };
        let pipe: Box<dyn Read + Send> = match place {
            STDIN => Box::new(io::stdin()),
            path => Box::new(File::open(path).map_err(|error| refused(VARIABLE, path, &error))?),
        };
        let words = match environment.var(REPORT) {
            None => None,
            Some(STDERR) => Some(None),
            Some(path) => {
                let file = File::options().write(true).open(path);
                Some(Some(file.map_err(|error| refused(REPORT, path, &error))?))
            }
        };
        let (regrouped, orders) = mpsc::channel();
        std::thread::Builder::new()
            .name("launcher".into())
            .spawn(move || {
                for line in BufReader::new(pipe).lines() {
                    match line.map(|line| line.parse()) {
                        Ok(Ok(Order::Signal(signal))) => {
                            // Another number than that of a signal is none of this program's.
                            low_level::raise(signal).ok();
                        }
                        Ok(Ok(Order::Regroup(to))) => drop(regrouped.send(to)),
                        // A newer launcher may say more.
                        Ok(Err(())) => {}
                        Err(_) => break,
                    }
                }
                low_level::raise(SIGTERM).ok();
                std::thread::sleep(GRACE);
                low_level::exit(128 + SIGTERM);
            })
            .map_err(|error| xdit_models::refused_thread("the launcher", &error))?;
        let line = words.map(|words| LauncherLine {
            words,
            orders: Mutex::new(orders),
        });
        if let Some(line) = &line {
            // A launcher that has ended hears nothing.
            line.say(&Word::Pid(std::process::id())).ok();
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let regroup = Regroup {
            round: 2,
            host: "node1".into(),
            port: 29500,
            ranks: vec![0, 2, 3],
        };
        for order in [Order::Signal(15), Order::Regroup(regroup)] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        for odd in [
            "",
            "signal",
            "signal x",
            "lost 3",
            "signal 99999999999",
            "regroup 1 a 2 ",
            "regroup 1 a 2 0,,1",
        ] {
            assert_eq!(odd.parse::<Order>(), Err(()), "{odd}");
        }
    }

    #[test]
    fn words_arrive_as_they_were_said() {
        let left = |lost| Word::Left { round: 1, lost };
        for word in [
            Word::Pid(7),
            left(None),
            left(Some((3, String::new()))),
            left(Some((3, "no sign of life for 4.0 s: stopped".into()))),
        ] {
            assert_eq!(word.to_string().parse(), Ok(word));
        }
        let split = left(Some((0, "two\nlines".into()))).to_string();
        assert_eq!(split.lines().count(), 1, "{split}");
        for odd in ["", "pid", "pid -1", "left", "left x", "left 1 x why"] {
            assert_eq!(odd.parse::<Word>(), Err(()), "{odd}");
        }
    }
}
