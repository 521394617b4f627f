//! What attention takes and returns.

use std::fmt;

use crate::{Tensor, View};

/// The input of attention.
///
/// # Shapes
/// `q` [b, lq, h, d]; `k` and `v` [b, lk, h_kv, d] where h_kv divides h: q head i reads kv head i / (h / h_kv). d is 1 to
/// 65536.
/// The views may be parts of one joint tensor. Only a last dim with a stride other than 1 costs a copy.
///
/// Make one by [`new`](Self::new), then change it by the methods `with_…` or by the fields.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttnInput<'a> {
    /// Queries.
    pub q: View<'a>,
    /// Keys.
    pub k: View<'a>,
    /// Values.
    pub v: View<'a>,
    /// Which rows of each whole stream the local rows are, in order; empty stands for one whole stream.
    pub segments: &'a [Segment],
    /// The same for the rows of `k` and `v` where they are not those of `q`; empty stands for `segments`.
    pub keys: &'a [Segment],
    /// Factor of q kᵀ; `None` is 1/√d.
    pub scale: Option<f32>,
    /// Which keys a query sees, and what is added to the scores.
    pub mask: Mask<'a>,
    /// Whether the caller reads [`AttnOut::lse`]: a wrapper that would have to send it leaves it out otherwise.
    pub lse: bool,
}

impl<'a> AttnInput<'a> {
    /// Attention of one whole stream, without a mask, scaled by 1/√d; the log-sum-exp is wanted.
    pub fn new(q: impl Into<View<'a>>, k: impl Into<View<'a>>, v: impl Into<View<'a>>) -> Self {
        Self {
            q: q.into(),
            k: k.into(),
            v: v.into(),
            segments: &[],
            keys: &[],
            scale: None,
            mask: Mask::default(),
            lse: true,
        }
    }

    /// With these [`segments`](Self::segments).
    #[must_use]
    pub fn with_segments(self, segments: &'a [Segment]) -> Self {
        Self { segments, ..self }
    }

    /// With these [`keys`](Self::keys).
    #[must_use]
    pub fn with_keys(self, keys: &'a [Segment]) -> Self {
        Self { keys, ..self }
    }

    /// With this [`scale`](Self::scale).
    #[must_use]
    pub fn with_scale(self, scale: Option<f32>) -> Self {
        Self { scale, ..self }
    }

    /// With this [`mask`](Self::mask).
    #[must_use]
    pub fn with_mask(self, mask: Mask<'a>) -> Self {
        Self { mask, ..self }
    }

    /// With or without [`lse`](Self::lse).
    #[must_use]
    pub fn with_lse(self, lse: bool) -> Self {
        Self { lse, ..self }
    }
}

/// The place of some local rows in a whole stream (text, image).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Which of the model's streams, counted from 0.
    pub stream: usize,
    /// Index in the whole stream of the first local row.
    pub start: usize,
    /// Number of local rows.
    pub len: usize,
    /// Number of rows of the whole stream.
    pub total: usize,
}

/// As errors show it.
impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.start.saturating_add(self.len);
        let (stream, start, total) = (self.stream, self.start, self.total);
        write!(f, "rows {start}..{end} of the {total} of stream {stream}")
    }
}

/// Which keys a query sees, and what is added to its scores. The default hides nothing; the methods `with_…` and the fields
/// change it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Mask<'a> {
    /// Query i sees keys 0..=i, as `is_causal` of PyTorch's `scaled_dot_product_attention` (aligned at the first key
    /// even where lq and lk differ).
    pub causal: bool,
    /// [b, lk] of u8: 0 where the key is hidden, anything else where it is seen. What the hidden keys and values hold, NaN
    /// included, has no effect.
    pub key_mask: Option<View<'a>>,
    /// Added to the scaled scores: [b, h, lq, lk], where each of the first three dims may be 1 and then counts for all.
    pub bias: Option<View<'a>>,
}

impl<'a> Mask<'a> {
    /// With or without the [`causal`](Self::causal) mask.
    #[must_use]
    pub fn with_causal(self, causal: bool) -> Self {
        Self { causal, ..self }
    }

    /// With this [`key_mask`](Self::key_mask).
    #[must_use]
    pub fn with_key_mask(self, key_mask: Option<View<'a>>) -> Self {
        Self { key_mask, ..self }
    }

    /// With this [`bias`](Self::bias).
    #[must_use]
    pub fn with_bias(self, bias: Option<View<'a>>) -> Self {
        Self { bias, ..self }
    }
}

/// The output of attention.
#[derive(Debug, Clone)]
pub struct AttnOut {
    /// [b, lq, h, d], of q's dtype. A row that sees no key is 0.
    pub out: Tensor,
    /// [b, h, lq] f32: natural log of the sum of e^score over the keys seen; −∞ for a row that sees none. A wrapper may
    /// return it empty, [b, h, 0], where [`AttnInput::lse`] is false.
    pub lse: Tensor,
}
