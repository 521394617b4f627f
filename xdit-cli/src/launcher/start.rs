//! Starts the processes of a job.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use xdit_models::quote;

use crate::launcher::channel::Channel;
use crate::launcher::hearing;
use crate::launcher::layout::{LaunchJob, LaunchSeat};
use crate::launcher::port::{self, ReservedPort};
use crate::report::failure::Failure;
use crate::run::control::{REPORT, STDERR, STDIN, VARIABLE, Word};
use crate::run::digest;

/// The variable with which a user names another port than that of [`Starter`], for other launchers.
const OF_USER: &str = "XDIT_RENDEZVOUS_PORT";
/// The bytes of a secret, before they are written as text.
const SECRET: usize = 32;

/// A process that was started.
#[derive(Debug)]
pub(super) struct LaunchedProcess {
    pub(super) seat: LaunchSeat,
    pub(super) child: Child,
    pub(super) channel: Channel,
    /// The thread that hears what it says.
    pub(super) heard: Option<JoinHandle<()>>,
    /// Its number on its host, if it has said so.
    pub(super) pid: Option<u32>,
    /// Why the others have lost it, if they have.
    pub(super) lost: Option<String>,
}

/// Takes what a process says: its rank, and a word.
pub(super) type Hear = Arc<dyn Fn(usize, Word) + Send + Sync>;

/// What all processes of a job share.
pub(super) struct Starter<'j> {
    job: &'j LaunchJob,
    /// Where it was called.
    folder: PathBuf,
    secret: String,
    port: u16,
    /// Held until another is chosen, or the job ends.
    reserved: Option<ReservedPort>,
    hear: Hear,
}

impl<'j> Starter<'j> {
    /// Chooses what the processes share: a port and a secret.
    ///
    /// # Errors
    /// [`Failure::Start`] if the system has no free port or no random numbers.
    pub(super) fn new(job: &'j LaunchJob, hear: Hear) -> Result<Self, Failure> {
        let failed = |what: &'static str| move |error: io::Error| Failure::start(what, &error);
        let is_here = job.hosts.iter().all(Option::is_none);
        let reserved = match (job.port, is_here) {
            (None, true) => Some(ReservedPort::any().map_err(failed("the port of the ranks"))?),
            _ => None,
        };
        let chosen = reserved.as_ref().map(|reserved| reserved.number);
        Ok(Self {
            job,
            folder: std::env::current_dir().map_err(failed("the current folder"))?,
            secret: secret().map_err(failed("the secret of the ranks"))?,
            port: job.port.or(chosen).unwrap_or_else(port::of_another_host),
            reserved,
            hear,
        })
    }

    /// Chooses where ranks meet again, the first of which has this seat. A port that a flag names stays.
    pub(super) fn meet_again(&mut self, first: &LaunchSeat) -> (String, u16) {
        match (self.job.port, &first.host) {
            (Some(_), _) => {}
            (None, Some(_)) => self.port = port::of_another_host(),
            // Without a free one the ranks try the last again.
            (None, None) => {
                if let Ok(reserved) = ReservedPort::any() {
                    self.port = reserved.number;
                    self.reserved = Some(reserved);
                }
            }
        }
        (first.address().to_owned(), self.port)
    }

    /// Kills a process. Of another host, its ssh is killed, and the process there by another one: a stopped process would stay.
    pub(super) fn kill(&self, process: &mut LaunchedProcess) {
        process.child.kill().ok();
        let (Some(host), Some(pid)) = (&process.seat.host, process.pid) else {
            return;
        };
        let Some((program, arguments)) = self.job.ssh.split_first() else {
            return;
        };
        let killer = Command::new(program)
            .process_group(0)
            .args(arguments)
            .arg(host)
            .arg(format!("kill -KILL {pid}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(mut killer) = killer {
            std::thread::spawn(move || killer.wait());
        }
    }

    /// Starts a process.
    ///
    /// # Errors
    /// [`Failure::Start`] if the system refuses it.
    pub(super) fn start(&self, seat: LaunchSeat) -> Result<LaunchedProcess, Failure> {
        let name = seat.name();
        let started = match seat.host.clone() {
            None => self.here(seat),
            Some(host) => self.through_ssh(seat, &host),
        };
        started.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::usage(match self.job.ssh.first() {
                Some(ssh) => format!(
                    "--ssh {}: there is no such program; install ssh, or name another",
                    quote::shorten(ssh)
                ),
                None => format!(
                    "--program {}: there is no such program",
                    quote::name(&self.job.program.display().to_string())
                ),
            }),
            _ => Failure::start(name, &error),
        })
    }

    /// The variables of a process.
    fn variables(&self, seat: &LaunchSeat) -> [(&'static str, String); 9] {
        [
            ("XDIT_LAUNCH", "1".into()),
            ("RANK", seat.rank.to_string()),
            ("WORLD_SIZE", self.job.world_size().to_string()),
            ("LOCAL_RANK", seat.local_rank.to_string()),
            ("LOCAL_WORLD_SIZE", self.job.per_host.to_string()),
            ("MASTER_ADDR", self.job.address().to_owned()),
            ("MASTER_PORT", self.port.to_string()),
            ("XDIT_JOB_SECRET", self.secret.clone()),
            ("XDIT_RESTART", "0".into()),
        ]
    }

    /// A process of this host. Rank 0 has the standard input of this program, and its pipe is another file.
    fn here(&self, seat: LaunchSeat) -> io::Result<LaunchedProcess> {
        let (reader, writer) = io::pipe()?;
        // The child keeps it. No other child is started before this end is closed below.
        rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty())?;
        let words = match self.job.patience {
            Some(_) => Some(io::pipe()?),
            None => None,
        };
        let mut command = Command::new(&self.job.program);
        command.env_remove(REPORT);
        if let Some((_, theirs)) = &words {
            rustix::io::fcntl_setfd(theirs, rustix::io::FdFlags::empty())?;
            command.env(REPORT, format!("/dev/fd/{}", theirs.as_raw_fd()));
        }
        let child = command
            .args(&self.job.words)
            .env_remove(OF_USER)
            .envs(self.variables(&seat))
            .env(VARIABLE, format!("/dev/fd/{}", reader.as_raw_fd()))
            .stdin(match seat.rank {
                0 => Stdio::inherit(),
                _ => Stdio::null(),
            })
            .spawn()?;
        drop(reader);
        let words = words.map(|(ours, _)| ours);
        let heard = words.map(|words| self.listen(words, false, seat.rank));
        let opened = heard.transpose().and_then(|heard| {
            let channel = Channel::open(writer, Vec::new())?;
            Ok((channel, heard))
        });
        LaunchedProcess::with(seat, child, opened)
    }

    fn listen(
        &self,
        pipe: impl io::Read + Send + 'static,
        is_stderr: bool,
        rank: usize,
    ) -> io::Result<JoinHandle<()>> {
        let hear = self.hear.clone();
        hearing::listen(pipe, is_stderr, move |word| hear(rank, word))
    }

    /// A process of another host. What ssh sends is a fixed text: how many bytes of standard input are the script. The script has
    /// the secret, the variables and the words of the command, so that no list of processes shows them. What follows the script is
    /// the pipe.
    fn through_ssh(&self, seat: LaunchSeat, host: &str) -> io::Result<LaunchedProcess> {
        let script = self.script(&seat);
        let (program, arguments) = self.job.ssh.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut child = Command::new(program)
            // The signals of a terminal reach the process through its pipe, which ends with ssh.
            .process_group(0)
            .args(arguments)
            .arg(host)
            .arg(reading(script.len()))
            .stdin(Stdio::piped())
            .stderr(match self.job.patience {
                Some(_) => Stdio::piped(),
                None => Stdio::inherit(),
            })
            .spawn()?;
        let words = child.stderr.take();
        let heard = words.map(|words| self.listen(words, true, seat.rank));
        let opened = heard.transpose().and_then(|heard| {
            let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            Ok((Channel::open(pipe, script)?, heard))
        });
        LaunchedProcess::with(seat, child, opened)
    }

    /// The script of a process of another host, for any POSIX shell, which runs all of it or nothing.
    fn script(&self, seat: &LaunchSeat) -> Vec<u8> {
        let mut script = format!("{{ unset {OF_USER} {REPORT}; export").into_bytes();
        let own = (VARIABLE, STDIN.to_owned());
        let words = self.job.patience.map(|_| (REPORT, STDERR.to_owned()));
        for (name, value) in self.variables(seat).into_iter().chain([own]).chain(words) {
            script.extend(format!(" {name}=").as_bytes());
            script.extend(quoted(value.as_ref()));
        }
        script.extend(b" && cd ");
        script.extend(quoted(self.folder.as_ref()));
        script.extend(b" && exec ");
        script.extend(quoted(self.job.program.as_ref()));
        for word in &self.job.words {
            script.push(b' ');
            script.extend(quoted(word));
        }
        script.extend(b"; }");
        script
    }
}

impl LaunchedProcess {
    /// A started process with its channel. Without one it is ended.
    fn with(
        seat: LaunchSeat,
        mut child: Child,
        opened: io::Result<(Channel, Option<JoinHandle<()>>)>,
    ) -> io::Result<Self> {
        match opened {
            Ok((channel, heard)) => Ok(Self {
                seat,
                child,
                channel,
                heard,
                pid: None,
                lost: None,
            }),
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                Err(error)
            }
        }
    }
}

/// The words that ssh gives to the shell of a user, of whatever kind: run a script of so many bytes. `dd` reads no byte more.
fn reading(bytes: usize) -> String {
    format!("exec sh -c 'eval \"$(dd bs=1 count={bytes} 2>/dev/null)\"'")
}

/// A word for a POSIX shell.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// A random text that nobody guesses.
fn secret() -> io::Result<String> {
    let mut bytes = [0; SECRET];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(digest::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::io::Write;

    fn job(words: Vec<OsString>) -> LaunchJob {
        LaunchJob {
            hosts: vec![Some("a".into())],
            per_host: 2,
            words,
            port: Some(7),
            ssh: vec!["ssh".into()],
            program: "printf".into(),
            patience: None,
        }
    }

    fn starter(job: &LaunchJob) -> Starter<'_> {
        Starter::new(job, Arc::new(|_, _| ())).unwrap()
    }

    /// What a shell does with a script that arrives as over ssh, and then says what is left of standard input.
    fn run_script(words: Vec<OsString>, rest: &str) -> String {
        let job = job(words);
        let starter = starter(&job);
        let script = starter.script(&job.seats()[1]);
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "{}; cat",
                reading(script.len()).replacen("exec ", "", 1)
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&script).unwrap();
        pipe.write_all(rest.as_bytes()).unwrap();
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_script_leaves_the_rest_of_its_input() {
        let said = run_script(vec!["%s".into(), "word\n".into()], "signal 15\n");
        assert_eq!(said, "word\nsignal 15\n");
    }

    #[test]
    fn what_ssh_is_told_shows_no_word_and_no_secret() {
        let job = job(vec!["generate".into()]);
        let starter = starter(&job);
        let script = String::from_utf8(starter.script(&job.seats()[1])).unwrap();
        for word in [
            "RANK='1'",
            "LOCAL_RANK='1'",
            "MASTER_PORT='7'",
            &starter.secret,
        ] {
            assert!(script.contains(word), "{script}");
        }
        assert_eq!(starter.secret.len(), 2 * SECRET);
        assert_ne!(secret().unwrap(), secret().unwrap());
        let told = reading(script.len());
        assert!(
            !told.contains(&starter.secret) && !told.contains("generate"),
            "{told}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_word_arrives_as_it_is(words in prop::collection::vec("[^\0]{0,12}", 0..4)) {
            let all = std::iter::once("<%s>").chain(words.iter().map(String::as_str));
            let said = run_script(all.map(Into::into).collect(), "");
            let expected: String = match words.is_empty() {
                true => "<>".into(),
                false => words.iter().map(|word| format!("<{word}>")).collect(),
            };
            prop_assert_eq!(said, expected);
        }
    }
}
