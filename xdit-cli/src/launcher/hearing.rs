//! What processes say to this program.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread::JoinHandle;

use crate::run::control::{MARK, Word};

/// Reads the lines of a process in a thread until it ends, and gives its words to `hear`. If `is_stderr`, the lines are those of its
/// standard error: words have a mark, and all other lines go to the standard error of this program.
pub(super) fn listen(
    pipe: impl Read + Send + 'static,
    is_stderr: bool,
    hear: impl Fn(Word) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let listen = move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe
            .read_until(b'\n', &mut line)
            .is_ok_and(|bytes| bytes > 0)
        {
            match (word_in(&line, is_stderr), is_stderr) {
                (Some(word), _) => hear(word),
                // A closed standard error is ignored.
                (None, true) => drop(io::stderr().write_all(&line)),
                // A newer program may say more.
                (None, false) => {}
            }
            line.clear();
        }
    };
    let thread = std::thread::Builder::new().name("hears".into());
    thread.spawn(listen)
}

fn word_in(line: &[u8], is_marked: bool) -> Option<Word> {
    let line = std::str::from_utf8(line).ok()?;
    let word = match is_marked {
        true => line.strip_prefix(MARK)?,
        false => line,
    };
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_other_lines() {
        let said = "pid 7\n";
        assert_eq!(word_in(said.as_bytes(), false), Some(Word::Pid(7)));
        assert_eq!(word_in(said.as_bytes(), true), None);
        let marked = format!("{MARK}{said}");
        assert_eq!(word_in(marked.as_bytes(), true), Some(Word::Pid(7)));
        assert_eq!(word_in(b"\xff\n", true), None);
    }
}
