use crate::Kept;
use std::fmt;
use xdit_kernels::attention::{Attention, AttnInput, AttnOut, Segment};
use xdit_kernels::{Error, Result, TensorMut, View, layout, sums::RunningSums};

const OP: &str = "stale_kv";
/// Every this many tokens of each stream are compared with those of the previous step.
const SAMPLE: usize = 16;

/// Keeps keys and values of all patches between calls (PipeFusion, Fang et al., arXiv:2405.14430). The queries of one patch
/// attend to the fresh keys and values of the patches that have run in this step, and to those of the previous step for the
/// other patches.
///
/// The segments of a call describe its rows. The first call contains every stream (text, then each patch) and fixes their
/// order. A later call contains all or some of the streams. `StaleKv` replaces their rows in place and passes the call's
/// queries to the inner attention, with the keys and values of all streams ([`AttnInput::keys`]). With several ranks, it is
/// placed between Ulysses and Ring, so that each rank keeps its heads of its ring's rows.
///
/// One value serves one layer and one image. Nothing of an image reaches the next.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View};
/// use xdit_kernels::attention::{Attention, AttnInput, Flash, Segment};
/// use xdit_pipefusion::{Kept, StaleKv};
/// let device = &Device::cpu();
/// let kept = Kept::default();
/// let mut attention = StaleKv::new(Flash, kept.clone(), 1);
/// let patch = |stream| Segment { stream, start: 0, len: 1, total: 1 };
/// let ask = |attention: &mut StaleKv<Flash>, values: &[f32], segments: &[Segment]| {
///     let shape = [1, values.len(), 1, 1];
///     let zeros = vec![0.0; values.len()];
///     let v = View::from_slice(values, shape, device)?;
///     let k = View::from_slice(&zeros, shape, device)?;
///     let input = AttnInput::new(k, k, v).with_segments(segments);
///     Ok::<_, xdit_kernels::Error>(attention.attend(&input)?.out.to_vec_blocking::<f32>()?)
/// };
/// // Two patches of one token; keys of 0 make the output the mean of the values.
/// assert_eq!(ask(&mut attention, &[1.0, 3.0], &[patch(0), patch(1)])?, [2.0, 2.0]);
/// // Patch 0 alone sees its new value and the old value of patch 1.
/// assert_eq!(ask(&mut attention, &[5.0], &[patch(0)])?, [4.0]);
/// assert_eq!(kept.bytes(), 2 * 2 * 4);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub struct StaleKv<A> {
    inner: A,
    kept: Kept,
    always_fresh: usize,
    store: Option<Store>,
}

/// Keys and values `[b, l, h, d]` of this rank's rows of every stream.
struct Store {
    streams: Vec<Segment>,
    k: TensorMut,
    v: TensorMut,
}

impl<A> fmt::Debug for StaleKv<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = self.store.as_ref().map_or(0, |store| store.streams.len());
        write!(f, "StaleKv of {streams} streams")
    }
}

impl<A> StaleKv<A> {
    /// Creates a store of keys and values around `inner`. Streams below `always_fresh` come first in each step, so no query
    /// sees their old rows, and their change is not measured.
    pub fn new(inner: A, kept: Kept, always_fresh: usize) -> Self {
        Self {
            inner,
            kept,
            always_fresh,
            store: None,
        }
    }
}

/// Returns the rows of the keys and values of a call.
fn brought<'a>(input: &AttnInput<'a>) -> &'a [Segment] {
    match input.keys {
        [] => input.segments,
        keys => keys,
    }
}

impl Store {
    fn new(input: &AttnInput<'_>) -> Result<Self> {
        let new = |x: View<'_>| TensorMut::unfilled(x.shape(), x.dtype(), x.device());
        let (mut k, mut v) = (new(input.k)?, new(input.v)?);
        let places = [k.part(&[])?, v.part(&[])?];
        layout::copy_each([input.k, input.v].into_iter().zip(places).collect())?;
        Ok(Self {
            streams: brought(input).to_vec(),
            k: k.filled()?,
            v: v.filled()?,
        })
    }

    fn bytes(&self) -> usize {
        let k = self.k.view();
        2 * k.numel() * k.dtype().size()
    }

    /// Replaces the rows of a call. Returns how much the rows that queries may see old have changed, for sampled tokens, as
    /// [`RunningSums::add_distance`]. The sample depends only on the position in the stream, so it is the same for any number
    /// of ranks.
    fn replace(
        &mut self,
        input: &AttnInput<'_>,
        always_fresh: usize,
    ) -> Result<Option<RunningSums>> {
        let mut change: Option<RunningSums> = None;
        let mut from = 0;
        // The place of each stream of the call in the store, and its rows in the call.
        let (mut places, mut rows) = (Vec::new(), Vec::new());
        for segment in brought(input) {
            let mut at = 0;
            let mut kept = self.streams.iter();
            loop {
                match kept.next() {
                    Some(stream) if stream == segment => break,
                    Some(stream) => at += stream.len,
                    None => {
                        let want =
                            format!("rows of the streams of the first call {:?}", self.streams);
                        return Err(Error::shape(OP, want, brought(input)));
                    }
                }
            }
            places.push([(1, at, segment.len)]);
            rows.push((from, segment));
            from += segment.len;
        }
        for (&[(_, at, len)], &(from, segment)) in places.iter().zip(&rows) {
            if segment.stream < always_fresh {
                continue;
            }
            let first = segment.start.next_multiple_of(SAMPLE) - segment.start;
            for (fresh, store) in [(input.k, &self.k), (input.v, &self.v)] {
                let fresh = fresh.narrow(1, from, len)?;
                let sums = match &mut change {
                    Some(sums) => sums,
                    none => none.insert(RunningSums::zeros(2, fresh.device())?),
                };
                let stale = store.view().narrow(1, at, len)?;
                sums.add_distance(0, fresh, stale, first, SAMPLE)?;
            }
        }
        let mut copies = Vec::new();
        for (fresh, store) in [(input.k, &mut self.k), (input.v, &mut self.v)] {
            for (&(from, segment), place) in rows.iter().zip(store.view_mut().parts(&places)?) {
                copies.push((fresh.narrow(1, from, segment.len)?, place));
            }
        }
        layout::copy_each(copies)?;
        Ok(change)
    }
}

impl<A: Attention> Attention for StaleKv<A> {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        let rows: usize = brought(input).iter().map(|segment| segment.len).sum();
        if rows != input.k.dim(1) || input.v.shape() != input.k.shape() {
            return Err(Error::shape(
                OP,
                "segments of the rows of k and v",
                (brought(input), input.k, input.v),
            ));
        }
        if input.mask.causal || input.mask.key_mask.is_some() || input.mask.bias.is_some() {
            return Err(Error::shape(
                OP,
                "no mask and no bias: they are not kept",
                format_args!("one"),
            ));
        }
        let Some(store) = &mut self.store else {
            let store = self.store.insert(Store::new(input)?);
            self.kept.holds(store.bytes());
            return self.inner.attend(input);
        };
        if let Some(change) = store.replace(input, self.always_fresh)? {
            self.kept.changed(change)?;
        }
        let mut joint = *input;
        (joint.k, joint.v) = (store.k.view(), store.v.view());
        joint.keys = &store.streams;
        self.inner.attend(&joint)
    }

    fn progress(&mut self) -> Result<()> {
        self.inner.progress()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::attention::Flash;
    use xdit_kernels::{DType, Device, Tensor};

    fn segment(stream: usize, len: usize) -> Segment {
        Segment {
            stream,
            start: 0,
            len,
            total: len,
        }
    }

    fn tensor(rows: usize, seed: usize) -> Tensor {
        let values: Vec<f32> = (0..2 * rows * 2 * 4)
            .map(|i| ((i * 37 + seed * 101) as f32 * 0.7).sin())
            .collect();
        Tensor::from_slice(&values, [2, rows, 2, 4], &Device::cpu()).unwrap()
    }

    fn attend(
        attention: &mut impl Attention,
        x: &[Tensor; 3],
        segments: &[Segment],
    ) -> Result<AttnOut> {
        let [q, k, v] = x;
        attention.attend(&AttnInput::new(q, k, v).with_segments(segments))
    }

    #[test]
    fn a_patch_sees_itself_fresh_and_the_rest_as_kept() {
        let streams = [segment(0, 3), segment(1, 5), segment(2, 4)];
        let mut kept = StaleKv::new(Flash, Kept::default(), 2);
        let first = [1, 2, 3].map(|seed| tensor(12, seed));
        let whole = attend(&mut kept, &first, &streams).unwrap();
        let plain = attend(&mut Flash, &first, &[]).unwrap();
        assert_eq!(
            whole.out.host_bytes_blocking().unwrap(),
            plain.out.host_bytes_blocking().unwrap()
        );

        let fresh = [4, 5, 6].map(|seed| tensor(8, seed));
        let got = attend(&mut kept, &fresh, &streams[..2]).unwrap();
        let mixed = |i: usize| {
            let old = first[i].view().narrow(1, 8, 4).unwrap();
            Tensor::cat(&[fresh[i].view(), old], 1).unwrap()
        };
        let want = attend(&mut Flash, &[fresh[0].clone(), mixed(1), mixed(2)], &[]).unwrap();
        assert_eq!(
            got.out.host_bytes_blocking().unwrap(),
            want.out.host_bytes_blocking().unwrap()
        );

        // The next step's whole turn replaces everything.
        let again = [7, 8, 9].map(|seed| tensor(12, seed));
        let got = attend(&mut kept, &again, &streams).unwrap();
        let want = attend(&mut Flash, &again, &[]).unwrap();
        assert_eq!(
            got.out.host_bytes_blocking().unwrap(),
            want.out.host_bytes_blocking().unwrap()
        );
    }

    #[test]
    fn change_is_that_of_streams_that_may_be_old() {
        let streams = [segment(0, 3), segment(1, 5), segment(2, 4)];
        let meter = Kept::default();
        let mut kept = StaleKv::new(Flash, meter.clone(), 2);
        let first = [1, 2, 3].map(|seed| tensor(12, seed));
        attend(&mut kept, &first, &streams).unwrap();
        assert!(meter.take_change().is_none());
        let fresh = [1, 2, 3].map(|seed| tensor(8, seed + 5));
        attend(&mut kept, &fresh, &streams[..2]).unwrap();
        assert!(
            meter.take_change().is_none(),
            "text and patch 0 are never old"
        );
        let twice = |x: &Tensor| {
            let values: Vec<f32> = x
                .to_vec_blocking::<f32>()
                .unwrap()
                .iter()
                .map(|v| 2.0 * v)
                .collect();
            Tensor::from_slice(&values, x.shape(), &Device::cpu()).unwrap()
        };
        let last = [0, 1, 2].map(|i| twice(&first[i].narrow(1, 8, 4).unwrap()));
        attend(&mut kept, &last, &streams[2..]).unwrap();
        // Twice as large: half of the fresh value away.
        let change = meter.take_change().unwrap();
        let [moved, norm] = change.to_vec_blocking(0..2).unwrap()[..] else {
            panic!("two sums")
        };
        let change = (moved / norm).sqrt();
        assert!((change - 0.5).abs() <= 1e-6, "{change}");
        assert_eq!(meter.bytes(), 2 * 2 * 12 * 2 * 4 * 4);
    }

    #[test]
    fn keys_of_their_own_are_kept_as_what_they_are() {
        let mut kept = StaleKv::new(Flash, Kept::default(), 0);
        let [q, k, v] = [1, 2, 3].map(|seed| tensor(4, seed));
        let keys = [segment(0, 1), segment(1, 3)];
        let ask = |kept: &mut StaleKv<Flash>, k: View<'_>, v: View<'_>, keys: &[Segment]| {
            let segments = &[segment(0, 4)];
            let input = AttnInput::new(q.view(), k, v);
            kept.attend(&input.with_segments(segments).with_keys(keys))
        };
        ask(&mut kept, k.view(), v.view(), &keys).unwrap();
        let fresh = tensor(3, 4);
        let got = ask(&mut kept, fresh.view(), fresh.view(), &keys[1..]).unwrap();
        let joint = |old: &Tensor| {
            let text = old.view().narrow(1, 0, 1).unwrap();
            Tensor::cat(&[text, fresh.view()], 1).unwrap()
        };
        let want = attend(&mut Flash, &[q.clone(), joint(&k), joint(&v)], &[]).unwrap();
        assert_eq!(
            got.out.host_bytes_blocking().unwrap(),
            want.out.host_bytes_blocking().unwrap()
        );
    }

    #[test]
    fn masks_and_rows_without_a_name_are_refused() {
        let mut kept = StaleKv::new(Flash, Kept::default(), 0);
        let x = tensor(4, 1);
        let segments = &[segment(0, 4)];
        let plain = AttnInput::new(&x, &x, &x);
        assert!(kept.attend(&plain).is_err(), "no segments");
        let mut causal = plain.with_segments(segments);
        causal.mask.causal = true;
        let error = kept.attend(&causal).unwrap_err().to_string();
        assert!(error.contains("no mask"), "{error}");
    }

    #[test]
    fn rows_that_were_never_kept_are_refused() {
        let mut kept = StaleKv::new(Flash, Kept::default(), 0);
        let x = [1, 2, 3].map(|seed| tensor(4, seed));
        attend(&mut kept, &x, &[segment(0, 4)]).unwrap();
        let error = attend(&mut kept, &x, &[segment(1, 4)])
            .unwrap_err()
            .to_string();
        assert!(error.contains("streams of the first call"), "{error}");
        let other_batch = Tensor::zeros([1, 4, 2, 4], DType::F32, &Device::cpu()).unwrap();
        let x = [other_batch.clone(), other_batch.clone(), other_batch];
        assert!(attend(&mut kept, &x, &[segment(0, 4)]).is_err());
        let short = [1, 2, 3].map(|seed| tensor(3, seed));
        assert!(attend(&mut kept, &short, &[segment(0, 4)]).is_err());
    }
}
