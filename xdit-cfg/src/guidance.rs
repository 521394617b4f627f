//! Distributes the branches of guidance over ranks and combines their predictions.

use crate::plan::check_degree;
use crate::{Branch, Error, Guided, Result, Scales};
use xdit_comm::{Group, Op, Spec};
use xdit_kernels::{DType, Tensor, elementwise};

/// Classifier-free guidance on one rank or two.
///
/// One rank computes all branches, as a batch or one by one. With two ranks, rank 0 computes the conditional branch and rank 1
/// the others. Every rank combines the predictions in f32, in the same order of operations, so two ranks produce the bits of one
/// rank.
///
/// # Examples
/// A "model" that predicts 3 with the prompt and 1 without:
/// ```
/// use xdit_cfg::{Branch, Guidance, Scales};
/// use xdit_comm::threads;
/// use xdit_kernels::{Device, Tensor};
/// let model = |branch| match branch {
///     Branch::Conditional => Tensor::from_slice(&[3f32], [1, 1], &Device::cpu()),
///     _ => Tensor::from_slice(&[1f32], [1, 1], &Device::cpu()),
/// };
/// let scales = Scales { guidance: 5.0, rescale: 0.0, skip_layers: None };
/// let both = threads::run(2, move |cfg| {
///     let guidance = Guidance::new(Some(cfg))?;
///     let branches = guidance.branches(&scales);
///     assert_eq!(branches.len(), 1);
///     let predictions = branches.iter().map(|b| model(*b)).collect::<Result<Vec<_>, _>>()?;
///     Ok(guidance.combine(&scales, &predictions)?.to_vec_blocking::<f32>()?)
/// })?;
/// assert_eq!(both, [[11.0], [11.0]]);
/// # Ok::<(), xdit_comm::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Guidance {
    /// The group of the two ranks; `None` with one rank.
    pair: Option<Group>,
}

impl Guidance {
    /// Creates guidance over the ranks of a mesh's cfg axis. `None` is one rank.
    ///
    /// # Errors
    /// [`Error::Degree`] if there are more than two.
    pub fn new(group: Option<Group>) -> Result<Self> {
        check_degree(group.as_ref().map_or(1, Group::world_size))?;
        Ok(Self {
            pair: group.filter(|group| group.world_size() == 2),
        })
    }

    /// Returns the branches that this rank computes in a step with these scales, in order.
    ///
    /// In a step without guidance, every rank computes the conditional branch. Two ranks then do the same work and exchange
    /// nothing. [`GuidancePlan::check`](crate::GuidancePlan::check) refuses a plan in which this is the case in all steps.
    pub fn branches(&self, scales: &Scales) -> &'static [Branch] {
        let all = scales.branches();
        match &self.pair {
            Some(pair) if all.len() > 1 => Branch::of_rank(all, 2, pair.rank()),
            _ => all,
        }
    }

    /// Returns the guided prediction, f32, on every rank:
    ///
    /// ```text
    /// uncond + guidance · (cond − uncond)                      diffusers, any pipeline with guidance
    ///        + skip_layers · (cond − skipped)                  diffusers, pipeline_stable_diffusion_3.py
    /// then, per batch entry, · (rescale · std(cond) / std(guided) + 1 − rescale)      diffusers, rescale_noise_cfg
    /// ```
    ///
    /// Without guidance, this is the conditional prediction. The rescale uses the standard deviation over the given predictions.
    /// If they are only part of an image, call [`guide`](Self::guide), reduce the sums of all parts, and then call
    /// [`Guided::rescaled`].
    ///
    /// # Shapes
    /// `predictions` has one tensor for each of [`branches`](Self::branches): `[b, ..]` in f32, bf16 or f16, all of one shape and
    /// dtype. Slices of a batch of branches ([`Tensor::narrow`] of dim 0) work without a copy.
    ///
    /// # Collective
    /// Both ranks call it with the same scales and shapes. It is one `all_gather` of this rank's predictions. With one rank, or in
    /// a step without guidance, nothing is sent.
    ///
    /// # Errors
    /// [`Error::Scale`]; [`Error::Predictions`] and [`Error::Shape`] if the predictions are not as above; [`Error::Constant`];
    /// [`Error::Comm`].
    pub fn combine(&self, scales: &Scales, predictions: &[Tensor]) -> Result<Tensor> {
        let guided = self.guide(scales, predictions)?;
        if !guided.needs_rescale() {
            return Ok(guided.into_prediction());
        }
        let sums = guided.sums()?;
        guided.rescaled(&sums)
    }

    /// Returns the prediction of [`combine`](Self::combine) before the rescale, with the input of the rescale.
    ///
    /// # Shapes
    /// As for [`combine`](Self::combine).
    ///
    /// # Collective
    /// As for [`combine`](Self::combine), which makes its only exchange here.
    ///
    /// # Errors
    /// As for [`combine`](Self::combine).
    pub fn guide(&self, scales: &Scales, predictions: &[Tensor]) -> Result<Guided> {
        scales.check()?;
        check_predictions(self.branches(scales), predictions)?;
        let wide = |prediction: &Tensor| prediction.to_dtype(DType::F32);
        let predictions = self.exchange(scales, predictions)?;
        let all = predictions.iter().map(wide);
        let all = all.collect::<Result<Vec<_>, _>>()?;
        let conditional = all[0].clone();
        let mut guided = conditional.clone();
        if let Some(unconditional) = all.get(1) {
            let towards = elementwise::sub(&conditional, unconditional)?;
            guided = elementwise::add_scaled(unconditional, &towards, scales.guidance)?;
        }
        if let (Some(skipped), Some(scale)) = (all.get(2), scales.skip_layers) {
            let away = elementwise::sub(&conditional, skipped)?;
            guided = elementwise::add_scaled(&guided, &away, scale)?;
        }
        let rescale = if all.len() > 1 { scales.rescale } else { 0.0 };
        Ok(Guided {
            predictions,
            conditional,
            guided,
            rescale,
        })
    }

    /// The predictions of all branches, in order.
    fn exchange(&self, scales: &Scales, predictions: &[Tensor]) -> Result<Vec<Tensor>> {
        let all = scales.branches();
        let Some(pair) = self.pair.as_ref().filter(|_| all.len() > 1) else {
            return Ok(predictions.to_vec());
        };
        let first = &predictions[0];
        let batch = first.dim(0);
        let mine = match predictions {
            [one] => one.clone(),
            several => {
                let views: Vec<_> = several.iter().map(Tensor::view).collect();
                let joint = Tensor::cat(&views, 0)?;
                pair.count_copied(Op::AllGather, Spec::of(&joint).bytes());
                joint
            }
        };
        let counts = [0, 1].map(|rank| Branch::of_rank(all, 2, rank).len());
        let expected = counts.map(|count| {
            let mut shape = first.shape().to_vec();
            shape[0] = batch * count;
            Spec::new(&shape[..], first.dtype())
        });
        let arrived = pair.all_gather(&mine, &expected)?;
        // Rank order is branch order.
        let branches = arrived
            .iter()
            .zip(counts)
            .flat_map(|(joint, count)| (0..count).map(move |i| joint.narrow(0, i * batch, batch)));
        branches.map(|branch| Ok(branch?)).collect()
    }
}

fn check_predictions(branches: &'static [Branch], predictions: &[Tensor]) -> Result<()> {
    if predictions.len() != branches.len() {
        return Err(Error::Predictions {
            branches,
            expected: branches.len(),
            got: predictions.len(),
        });
    }
    let first = Spec::of(&predictions[0]);
    if predictions[0].shape().is_empty() {
        return Err(Error::Shape {
            op: "combine",
            expected: "predictions of shape [b, ..]".to_owned(),
            got: first.to_string(),
        });
    }
    let other = predictions.iter().map(Spec::of).find(|it| *it != first);
    other.map_or(Ok(()), |other| {
        Err(Error::Shape {
            op: "combine",
            expected: format!("predictions that are all {first}"),
            got: other.to_string(),
        })
    })
}
