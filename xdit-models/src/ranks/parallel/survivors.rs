//! The ranks that are left when some are lost.

use xdit_kernels::Device;

use super::{OnRankLoss, Parallel, RankBackend, StageSplit};
use crate::ranks::degrees::Degrees;

impl Parallel {
    /// Sets what happens when a rank that is a thread is lost.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::{Degrees, LoadOptions, ModelSource, OnRankLoss, Parallel, Pipeline, Request};
    /// let parallel = Parallel::threads(Degrees { ring: 2, ..Degrees::default() }).on_rank_loss(OnRankLoss::Replan);
    /// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?.parallel(parallel)?;
    /// let request = Request::new("a red circle").height(64).width(64).num_inference_steps(1);
    /// let output = pipe.generate(&request, &mut ())?;
    /// assert_eq!(output.parts.len(), 1, "no rank was lost");
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    #[must_use]
    pub fn on_rank_loss(mut self, on_rank_loss: OnRankLoss) -> Self {
        self.on_rank_loss = on_rank_loss;
        self
    }

    /// Returns whether a call continues if it loses ranks.
    pub(crate) fn replans(&self) -> bool {
        let threads = matches!(self.backend, RankBackend::Threads { .. });
        threads && self.on_rank_loss == OnRankLoss::Replan && !self.is_alone()
    }

    /// Returns threads of these degrees instead, fewer than now and without the `lost` ones. `own` is the device of the pipeline,
    /// which stays the first.
    pub(crate) fn without(&self, lost: &[usize], degrees: Degrees, own: &Device) -> Self {
        let mut left = self.clone();
        if !self.devices.is_empty() {
            let each = self.device_of_each(own).into_iter().enumerate();
            let each = each.filter(|(rank, _)| !lost.contains(rank));
            let mut devices: Vec<Device> = each.map(|(_, device)| device).collect();
            if devices.first() != Some(own) {
                devices.insert(0, own.clone());
            }
            devices.truncate(degrees.product().unwrap_or(1));
            left.devices = devices;
        }
        left.of_degrees(degrees)
    }

    /// Returns the same kind of ranks with these degrees. Blocks that were counted out for other stages are divided by FLOPs.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::{Degrees, Parallel, PipeFusion, StageSplit};
    /// let stages = PipeFusion::default().stages(StageSplit::Blocks(vec![3, 5]));
    /// let two = Parallel::threads(Degrees { pipe: 2, ..Degrees::default() }).pipefusion(stages);
    /// let one = two.of_degrees(Degrees::default());
    /// assert_eq!(one.pipefusion.stages, StageSplit::Flops);
    /// ```
    #[must_use]
    pub fn of_degrees(mut self, degrees: Degrees) -> Self {
        if let StageSplit::Blocks(counts) = &self.pipefusion.stages
            && counts.len() != degrees.pipe
        {
            self.pipefusion.stages = StageSplit::Flops;
        }
        self.degrees = degrees;
        self
    }
}
