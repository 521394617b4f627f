//! Seeded bugs: the text of a kernel with something else in it.

use crate::case::{Kernels, module};
use ptx_interp::Options;
use std::ops::Range;

/// A bug: `to` in place of one of the `from` in a kernel, which are counted from 0, or of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bug<'a> {
    pub(crate) kernel: &'a str,
    pub(crate) from: &'a str,
    pub(crate) place: Option<usize>,
    pub(crate) to: &'a str,
}

impl Bug<'_> {
    /// The text with the bug.
    pub(crate) fn seeded(&self, text: &str) -> String {
        let Self {
            kernel,
            from,
            place,
            to,
        } = *self;
        let range = range_of(text, kernel);
        let (body, after) = (&text[range.clone()], &text[range.end..]);
        let count = body.matches(from).count();
        let enough = count > place.unwrap_or(0);
        assert!(enough, "{kernel} has {from} {count} times: {self:?}");
        let changed = match place {
            None => body.replace(from, to),
            Some(place) => {
                let (at, _) = body.match_indices(from).nth(place).expect("counted");
                format!("{}{to}{}", &body[..at], &body[at + from.len()..])
            }
        };
        format!("{}{changed}{after}", &text[..range.start])
    }

    /// Expects that a run under one of the schedules says that something is wrong.
    pub(crate) fn assert_found(
        &self,
        text: &str,
        run: impl Fn(&Kernels, &Options) -> Result<(), String>,
    ) {
        let kernels = module(&self.seeded(text));
        let mut schedules = kernels.schedules().into_iter();
        let found = schedules.any(|options| run(&kernels, &options).is_err());
        assert!(found, "nobody noticed {self:?}");
    }
}

/// The text with this kernel only.
pub(crate) fn alone(text: &str, kernel: &str) -> String {
    let head = text.find("\n.visible .entry").expect("a kernel");
    format!("{}{}", &text[..head], &text[range_of(text, kernel)])
}

/// Where a kernel lies in a text.
fn range_of(text: &str, kernel: &str) -> Range<usize> {
    let start = text.find(&format!("\n.visible .entry {kernel}("));
    let start = start.unwrap_or_else(|| panic!("no kernel {kernel}"));
    let end = text[start..].find("\n}").expect("its end") + start + 2;
    start..end
}
