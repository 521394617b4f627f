//! The rescale of a guided prediction: section 3.4 of [arXiv:2305.08891](https://arxiv.org/abs/2305.08891).

use crate::{Error, Result};
use xdit_comm::Group;
use xdit_kernels::sums::RunningSums;
use xdit_kernels::{DType, Tensor, TensorMut, elementwise};

/// A guided prediction before the rescale. See [`Guidance::guide`](crate::Guidance::guide).
///
/// The rescale changes the prediction so that it has the standard deviation of the conditional prediction, over all elements of a
/// batch entry. If a rank holds part of an image (sequence parallelism, patches), reduce the sums over all parts:
///
/// ```
/// use xdit_cfg::{Guidance, Scales};
/// use xdit_comm::threads;
/// use xdit_kernels::{Device, Tensor};
/// let (cond, uncond) = ([1f32, 2., 3., 5.], [0f32, 1., 1., 3.]);
/// let scales = Scales { guidance: 4.0, rescale: 0.7, skip_layers: None };
/// let guidance = Guidance::new(None)?;
/// let rows = |x: &[f32]| Tensor::from_slice(x, [1, x.len()], &Device::cpu());
/// let whole = guidance.combine(&scales, &[rows(&cond)?, rows(&uncond)?])?;
/// // Two ranks of sequence parallelism, each with its rows of both branches.
/// let halves = threads::run(2, move |ulysses| {
///     let mine = 2 * ulysses.rank()..2 * ulysses.rank() + 2;
///     let guided = guidance.guide(&scales, &[rows(&cond[mine.clone()])?, rows(&uncond[mine])?])?;
///     let sums = guided.sums()?.all_reduced(&ulysses)?;
///     Ok(guided.rescaled(&sums)?.to_vec_blocking::<f32>()?)
/// })?;
/// assert_eq!(halves.concat(), whole.to_vec_blocking::<f32>()?);
/// # Ok::<(), xdit_cfg::Error>(())
/// ```
///
/// With patches of a pipeline, guide every patch of the step, [`merge`](RescaleSums::merge) the sums of all patches, and rescale
/// every patch. If patches are stepped one by one, the sums of later patches are not available in time. As with keys and values,
/// use this step's sums of the patches that have run, and the previous step's sums of the others.
#[derive(Debug, Clone)]
pub struct Guided {
    /// The predictions of all branches, in their own dtype.
    pub(crate) predictions: Vec<Tensor>,
    /// f32 `[b, ..]`, as is `guided`.
    pub(crate) conditional: Tensor,
    pub(crate) guided: Tensor,
    /// 0 for no rescale.
    pub(crate) rescale: f32,
}

impl Guided {
    /// Returns the predictions of all branches of the step, in order, on every rank, for example for an observer.
    ///
    /// # Shapes
    /// `[b, ..]` in the dtype of the model, one for each of [`Scales::branches`](crate::Scales::branches).
    pub fn predictions(&self) -> &[Tensor] {
        &self.predictions
    }

    /// Returns whether the prediction needs the rescale, and therefore the sums. All ranks with the same scales agree.
    pub fn needs_rescale(&self) -> bool {
        self.rescale > 0.0
    }

    /// Returns a part of this rank's prediction, for example one patch, like [`Tensor::narrow`].
    ///
    /// # Errors
    /// [`Error::Kernel`] if the range is out of bounds.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        let predictions = self.predictions.iter();
        let predictions = predictions.map(|whole| whole.narrow(dim, start, len));
        Ok(Self {
            predictions: predictions.collect::<std::result::Result<_, _>>()?,
            conditional: self.conditional.narrow(dim, start, len)?,
            guided: self.guided.narrow(dim, start, len)?,
            rescale: self.rescale,
        })
    }

    /// Returns the prediction, f32, without the rescale.
    pub fn into_prediction(self) -> Tensor {
        self.guided
    }

    /// Returns the sums over this rank's part. Kernels compute them, and the host reads them once.
    ///
    /// # Errors
    /// [`Error::Kernel`] if there is no memory, or the device failed.
    pub fn sums(&self) -> Result<RescaleSums> {
        let batch = self.guided.dim(0);
        let mut sums = RunningSums::zeros(4 * batch, self.guided.device())?;
        sums.add_moments(0, &self.conditional)?;
        sums.add_moments(2 * batch, &self.guided)?;
        let sums = sums.to_vec_blocking(0..4 * batch)?;
        let (conditional, guided) = sums.split_at(2 * batch);
        let count = self.guided.numel() as u64 / batch.max(1) as u64;
        let pairs = conditional.as_chunks().0.iter().zip(guided.as_chunks().0);
        Ok(RescaleSums {
            entries: pairs
                .map(|(&conditional, &guided)| EntrySums {
                    count,
                    conditional,
                    guided,
                })
                .collect(),
        })
    }

    /// Returns the prediction, f32, rescaled by the sums over whole images.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sums have another batch size; [`Error::Constant`] if the standard deviation of the prediction is
    /// zero (diffusers then returns NaN).
    pub fn rescaled(self, sums: &RescaleSums) -> Result<Tensor> {
        if !self.needs_rescale() {
            return Ok(self.guided);
        }
        let batch = self.guided.dim(0);
        sums.expect_batch("rescale", batch)?;
        let (shape, device) = (self.guided.shape(), self.guided.device());
        let mut out = TensorMut::unfilled(shape, DType::F32, device)?;
        for (entry, sums) in sums.entries.iter().enumerate() {
            let factor = sums.factor(entry, self.rescale.into())?;
            let rows = self.guided.view().narrow(0, entry, 1)?;
            elementwise::scale_into(rows, factor as f32, out.part(&[(0, entry, 1)])?)?;
        }
        Ok(out.freeze()?)
    }
}

/// The count, sum and sum of squares of the conditional and of the guided prediction, for each batch entry, in f64. The sums of all
/// ranks together determine the standard deviations over a whole image.
///
/// The standard deviation follows from these sums with a relative error of 1e-9 if the mean is within a thousand standard
/// deviations of zero. Predictions of noise or velocity have a mean near zero.
#[derive(Debug, Clone, PartialEq)]
pub struct RescaleSums {
    entries: Vec<EntrySums>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct EntrySums {
    count: u64,
    /// Σx, Σx².
    conditional: [f64; 2],
    guided: [f64; 2],
}

impl EntrySums {
    /// The number of values that are sent for one entry.
    const LEN: usize = 5;

    /// The factor of the entry.
    fn factor(&self, entry: usize, rescale: f64) -> Result<f64> {
        let squares = |[sum, squares]: [f64; 2]| squares - sum * sum / self.count as f64;
        let guided = squares(self.guided);
        // Rounding errors of a constant are not a deviation. NaN passes this check: it comes from the model and must stay visible.
        if self.count < 2 || guided <= 1e-12 * self.guided[1] {
            return Err(Error::Constant {
                entry,
                count: self.count,
            });
        }
        // Both have the same count, so Bessel's n − 1 cancels.
        let ratio = (squares(self.conditional).max(0.0) / guided).sqrt();
        Ok(rescale * ratio + (1.0 - rescale))
    }
}

impl RescaleSums {
    /// Adds the sums of another part of the same images.
    ///
    /// # Errors
    /// [`Error::Shape`] if `other` has another batch size.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        other.expect_batch("merge", self.entries.len())?;
        for (mine, other) in self.entries.iter_mut().zip(&other.entries) {
            mine.count += other.count;
            for i in [0, 1] {
                mine.conditional[i] += other.conditional[i];
                mine.guided[i] += other.guided[i];
            }
        }
        Ok(())
    }

    /// Returns the sums of all ranks of a group, added in rank order, so all ranks get the same bits. It is one exchange on the
    /// control plane, 40 bytes per batch entry to each other rank.
    ///
    /// # Collective
    /// Every rank of the group calls it. With several axes (ring, Ulysses), reduce over one and then over the other.
    ///
    /// # Errors
    /// [`Error::Comm`].
    pub fn all_reduced(&self, group: &Group) -> Result<Self> {
        if group.world_size() == 1 {
            return Ok(self.clone());
        }
        let all = group.control().all_gather_f64(&self.numbers())?;
        let mut parts = all.iter().map(|numbers| Self::from_numbers(numbers));
        // A group has at least one rank.
        let mut total = parts.next().unwrap_or_else(|| self.clone());
        for part in parts {
            total.merge(&part)?;
        }
        Ok(total)
    }

    fn expect_batch(&self, op: &'static str, batch: usize) -> Result<()> {
        if self.entries.len() == batch {
            return Ok(());
        }
        Err(Error::Shape {
            op,
            expected: format!("sums of {batch} batch entries"),
            got: self.entries.len().to_string(),
        })
    }

    /// The values that are sent for each entry. A count is below 2^53, so f64 represents it exactly.
    fn numbers(&self) -> Vec<f64> {
        let of = |entry: &EntrySums| {
            let ([c, cc], [g, gg]) = (entry.conditional, entry.guided);
            [entry.count as f64, c, cc, g, gg]
        };
        self.entries.iter().flat_map(of).collect()
    }

    fn from_numbers(numbers: &[f64]) -> Self {
        let (entries, _) = numbers.as_chunks();
        let entry = |&[count, c, cc, g, gg]: &[f64; EntrySums::LEN]| EntrySums {
            count: count as u64,
            conditional: [c, cc],
            guided: [g, gg],
        };
        Self {
            entries: entries.iter().map(entry).collect(),
        }
    }
}
