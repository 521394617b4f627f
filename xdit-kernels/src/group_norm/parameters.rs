//! Everything but the picture, checked against its channels.

use crate::{Error, Result, View};

/// What errors call the kernels.
pub(super) const OP: &str = "group_norm";

/// A task's memory grows with the channels alone; so they are bounded.
const MAX_CHANNELS: usize = 1 << 20;

/// The dims of a picture whose channels fall into `groups`.
pub(super) fn dims(x: &View<'_>, groups: usize) -> Result<[usize; 4]> {
    let &[b, h, w, c] = x.shape() else {
        return Err(Error::shape(OP, "an input [b, h, w, c]", x));
    };
    if c > MAX_CHANNELS {
        return Err(Error::shape(
            OP,
            format!("at most {MAX_CHANNELS} channels"),
            x,
        ));
    }
    if groups == 0 || !c.is_multiple_of(groups) {
        return Err(Error::shape(
            OP,
            format!("channels that {groups} groups divide"),
            x,
        ));
    }
    Ok([b, h, w, c])
}

/// Everything but the picture.
pub(super) struct Parameters<'a> {
    pub(super) groups: usize,
    /// `[c]`, of any dtype, and so the bias.
    pub(super) weight: View<'a>,
    pub(super) bias: View<'a>,
    pub(super) eps: f32,
    pub(super) silu: bool,
}

impl<'a> Parameters<'a> {
    /// Checked against `x`'s channels.
    pub(super) fn new(
        x: View<'_>,
        groups: usize,
        weight: View<'a>,
        bias: View<'a>,
        eps: f32,
        silu: bool,
    ) -> Result<Self> {
        let [_, _, _, c] = dims(&x, groups)?;
        for p in [&weight, &bias] {
            if p.shape() != [c] {
                return Err(Error::shape(OP, format!("a weight and a bias [{c}]"), p));
            }
        }
        Ok(Self {
            groups,
            weight,
            bias,
            eps,
            silu,
        })
    }
}
