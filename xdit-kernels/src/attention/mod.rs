//! Attention: the seam that parallel strategies wrap, and the kernel at its bottom.
//!
//! Shapes: b batch, l tokens (lq queries, lk keys), h heads, d head dim.

mod block;
mod call;
mod cpu;
mod lanes;
mod pack;
mod scratch;
mod seen;
mod softmax;
#[cfg(test)]
mod tests;
mod tile;
#[cfg(target_arch = "x86_64")]
mod transpose;

use crate::{
    DType, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, dispatch::one_device,
};

/// Attention over every key that an implementation can reach.
///
/// A model calls [`attend`](Self::attend) and knows no more; whether the keys of other ranks take part is the affair of
/// the wrappers around [`Flash`].
pub trait Attention {
    /// softmax(q kᵀ · scale + mask) v, with the log of each row's denominator.
    ///
    /// # Errors
    /// If shapes or dtypes do not fit each other, there is no memory, or a wrapper's communication fails.
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut>;

    /// Notes that the caller has finished an operation beside attention: a wrapper hands it on to what it wraps, and what is at
    /// the bottom may tell others that this rank is at work.
    ///
    /// # Errors
    /// If what the caller computes is of no use any more, since another rank has failed.
    fn progress(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<A: Attention + ?Sized> Attention for Box<A> {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        (**self).attend(input)
    }

    fn progress(&mut self) -> Result<()> {
        (**self).progress()
    }
}

impl<A: Attention + ?Sized> Attention for &mut A {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        (**self).attend(input)
    }

    fn progress(&mut self) -> Result<()> {
        (**self).progress()
    }
}

/// What attention is computed on.
///
/// # Shapes
/// `q` [b, lq, h, d]; `k` and `v` [b, lk, h_kv, d] where h_kv divides h: q head i reads kv head i / (h / h_kv). d is 1 to
/// 65536.
/// Views of one joint tensor are welcome: only a last dim with a stride other than 1 costs a copy.
///
/// [`new`](Self::new) makes one, which the methods `with_…` and the fields then change.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// What attention returns.
#[derive(Debug, Clone)]
pub struct AttnOut {
    /// [b, lq, h, d], of q's dtype. A row that sees no key is 0.
    pub out: Tensor,
    /// [b, h, lq] f32: natural log of the sum of e^score over the keys seen; −∞ for a row that sees none. A wrapper may
    /// return it empty, [b, h, 0], where [`AttnInput::lse`] is false.
    pub lse: Tensor,
}

/// Flash attention on the local keys: the bottom of every nest of wrappers. `segments` and `keys` do not matter to it.
///
/// Online softmax over blocks of 256 keys (Dao et al., "FlashAttention", arXiv:2205.14135), so memory does not grow with
/// lq · lk: keys and values are copied once into the layout of the matrix kernel, one kv head (up to 8 MiB) for each
/// thread, or at most 64 MiB for all (or one kv head, if that is more); each task holds a tile of scores and the sums of
/// 84 rows. A row's result does not depend on the other
/// rows or on the number of threads.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, attention::{AttnInput, Attention, Flash}};
/// let device = &Device::cpu();
/// // One query that is equally near to both keys: the mean of the values, and ln(e⁰ + e⁰).
/// let (q, k, v) = ([0f32, 0.], [1f32, 2., 3., 4.], [10f32, 20., 30., 40.]);
/// let q = View::from_slice(&q, [1, 1, 1, 2], device)?;
/// let k = View::from_slice(&k, [1, 2, 1, 2], device)?;
/// let v = View::from_slice(&v, [1, 2, 1, 2], device)?;
/// let got = Flash.attend(&AttnInput::new(q, k, v))?;
/// assert_eq!(got.out.to_vec_blocking::<f32>()?, [20., 30.]);
/// assert!((got.lse.to_vec_blocking::<f32>()?[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Flash;

impl Attention for Flash {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        let dims = Dims::of(input)?;
        let device = input.q.device();
        // SAFETY: `flash_into` writes every element of both outputs, or fails and they are dropped.
        let (mut out, mut lse) = unsafe {
            (
                TensorMut::uninit(OP, input.q.shape(), input.q.dtype(), device)?,
                TensorMut::uninit(OP, [dims.b, dims.h, dims.lq], DType::F32, device)?,
            )
        };
        flash_into(input, out.view_mut(), lse.view_mut())?;
        Ok(AttnOut {
            out: out.freeze(),
            lse: lse.freeze(),
        })
    }
}

/// Writes what [`Flash`] returns into the caller's memory: `out` [b, lq, h, d] of q's dtype, `lse` [b, h, lq] f32.
///
/// # Errors
/// If shapes or dtypes do not fit each other, or there is no memory for the packed keys and values.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, ViewMut, attention::{AttnInput, flash_into}};
/// let device = &Device::cpu();
/// let (q, k, v) = ([1f32], [1f32], [5f32]);
/// let shape = [1, 1, 1, 1];
/// let input = AttnInput::new(
///     View::from_slice(&q, shape, device)?,
///     View::from_slice(&k, shape, device)?,
///     View::from_slice(&v, shape, device)?,
/// );
/// let (mut out, mut lse) = ([0f32], [0f32]);
/// flash_into(
///     &input,
///     ViewMut::from_slice(&mut out, shape, device)?,
///     ViewMut::from_slice(&mut lse, [1, 1, 1], device)?,
/// )?;
/// assert_eq!((out, lse), ([5.], [1.]));
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn flash_into(input: &AttnInput<'_>, out: ViewMut<'_>, lse: ViewMut<'_>) -> Result<()> {
    let dims = Dims::of(input)?;
    out.expect(OP, input.q.shape(), input.q.dtype())?;
    lse.expect(OP, &[dims.b, dims.h, dims.lq], DType::F32)?;
    if dims.d > 1 && out.strides()[3] != 1 {
        return Err(Error::shape(OP, "an output whose last stride is 1", out));
    }
    let Dims {
        b, lq, lk, h, d, ..
    } = dims;
    let _span = tracing::trace_span!("attention", b, lq, lk, h, d).entered();
    let views = [Some(input.q), Some(input.k), Some(input.v)];
    let masks = [input.mask.key_mask, input.mask.bias];
    let inputs = views.iter().chain(&masks).flatten().map(View::device);
    match one_device(OP, inputs.chain([out.device(), lse.device()]))? {
        DeviceKind::Cpu(_) => {
            lse.written_by(|lse| out.written_by(|out| cpu::flash(input, &dims, out, lse)))
        }
    }
}

const OP: &str = "attention";

/// A task's memory grows with the head dim alone; so it is bounded.
const MAX_HEAD_DIM: usize = 1 << 16;

/// Sizes, checked against every view of an input.
#[derive(Debug, Clone, Copy)]
struct Dims {
    b: usize,
    lq: usize,
    lk: usize,
    h: usize,
    h_kv: usize,
    d: usize,
}

impl Dims {
    fn of(input: &AttnInput<'_>) -> Result<Self> {
        let (q, k, v) = (&input.q, &input.k, &input.v);
        let &[b, lq, h, d] = q.shape() else {
            return Err(Error::shape(OP, "q [b, lq, h, d]", q));
        };
        let &[k_b, lk, h_kv, k_d] = k.shape() else {
            return Err(Error::shape(OP, "k [b, lk, h_kv, d]", k));
        };
        if d == 0 || d > MAX_HEAD_DIM {
            let want = format!("a head dim of 1 to {MAX_HEAD_DIM}");
            return Err(Error::shape(OP, want, q));
        }
        if k_b != b || k_d != d {
            return Err(Error::shape(OP, format!("k [{b}, lk, h_kv, {d}]"), k));
        }
        if h % h_kv.max(1) != 0 || (h_kv == 0) != (h == 0) {
            let want = format!("a number of kv heads that divides {h} heads");
            return Err(Error::shape(OP, want, h_kv));
        }
        if v.shape() != k.shape() {
            return Err(Error::shape(OP, format!("v {:?} as k", k.shape()), v));
        }
        for x in [k, v] {
            if x.dtype() != q.dtype() {
                return Err(Error::DType {
                    op: OP,
                    expected: format!("{} of q for k and v", q.dtype()),
                    got: x.dtype(),
                });
            }
        }
        if let Some(mask) = input.mask.key_mask {
            if mask.shape() != [b, lk] {
                return Err(Error::shape(OP, format!("a key mask [{b}, {lk}]"), mask));
            }
            if mask.dtype() != DType::U8 {
                return Err(Error::DType {
                    op: OP,
                    expected: "u8 key mask".into(),
                    got: mask.dtype(),
                });
            }
        }
        if let Some(bias) = input.mask.bias {
            let fits = bias.ndim() == 4
                && bias.dim(3) == lk
                && [b, h, lq]
                    .iter()
                    .zip(bias.shape())
                    .all(|(&n, &got)| got == n || got == 1);
            if !fits {
                let want = format!("a bias [1 or {b}, 1 or {h}, 1 or {lq}, {lk}]");
                return Err(Error::shape(OP, want, bias));
            }
        }
        Ok(Self {
            b,
            lq,
            lk,
            h,
            h_kv,
            d,
        })
    }
}
