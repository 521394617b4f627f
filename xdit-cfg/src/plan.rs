//! The branches that each step needs, and their scales.

use crate::{Branch, Error, Result};

/// The scale of skip-layer guidance, and the steps that compute its branch.
///
/// As in diffusers' `StableDiffusion3Pipeline` (arguments `skip_layer_guidance_scale`, `_start`, `_stop`). The model decides which
/// blocks the branch leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SkipLayers {
    /// The factor of `conditional − skip_layers`.
    pub scale: f32,
    /// The branch runs in steps after this fraction of all steps.
    pub start: f64,
    /// The branch runs in steps before this fraction of all steps.
    pub stop: f64,
}

impl Default for SkipLayers {
    /// The values of diffusers: scale 2.8 from 0.01 to 0.2.
    fn default() -> Self {
        Self {
            scale: 2.8,
            start: 0.01,
            stop: 0.2,
        }
    }
}

impl SkipLayers {
    /// Returns whether this step of `steps` runs the branch: `steps · start < step < steps · stop`, as in diffusers. With few steps
    /// this may be no step at all: 0.2 of 5 steps ends before step 1.
    pub fn is_active(&self, step: usize, steps: usize) -> bool {
        let (step, steps) = (step as f64, steps as f64);
        step > steps * self.start && step < steps * self.stop
    }
}

/// The guidance of an image in all steps.
///
/// # Examples
/// ```
/// use xdit_cfg::{GuidancePlan, SkipLayers};
/// let plan = GuidancePlan {
///     guidance_scale: 5.0,
///     skip_layers: Some(SkipLayers::default()),
///     ..Default::default()
/// };
/// plan.check(2)?;
/// // Of 28 steps, those after 0.28 and before 5.6 have three branches.
/// let counts: Vec<usize> = (0..8).map(|step| plan.scales(step, 28).branches().len()).collect();
/// assert_eq!(counts, [2, 3, 3, 3, 3, 3, 2, 2]);
/// # Ok::<(), xdit_cfg::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuidancePlan {
    /// Guidance scale w of equation 2 of the Imagen paper ([arXiv:2205.11487](https://arxiv.org/abs/2205.11487)). 1 or less is no
    /// guidance: one branch.
    pub guidance_scale: f32,
    /// φ of section 3.4 of [arXiv:2305.08891](https://arxiv.org/abs/2305.08891): the share of the prediction that is rescaled to the
    /// standard deviation of the conditional one. 0 is no rescale.
    pub guidance_rescale: f32,
    /// The third branch. It runs only with guidance, as in diffusers.
    pub skip_layers: Option<SkipLayers>,
}

impl Default for GuidancePlan {
    /// No guidance.
    fn default() -> Self {
        Self {
            guidance_scale: 1.0,
            guidance_rescale: 0.0,
            skip_layers: None,
        }
    }
}

impl GuidancePlan {
    /// Checks that these scales are valid on `cfg_degree` ranks. Call it before you start the ranks.
    ///
    /// # Errors
    /// [`Error::Scale`]; [`Error::Degree`] for a degree other than 1 and 2; [`Error::OneBranch`] for two ranks without guidance: the
    /// second rank would only repeat the work of the first.
    ///
    /// # Examples
    /// ```
    /// use xdit_cfg::{Error, GuidancePlan};
    /// let plan = GuidancePlan::default();
    /// assert!(plan.check(1).is_ok());
    /// assert!(matches!(plan.check(2), Err(Error::OneBranch { .. })));
    /// ```
    pub fn check(&self, cfg_degree: usize) -> Result<()> {
        check_degree(cfg_degree)?;
        let Self {
            guidance_scale,
            guidance_rescale,
            skip_layers,
        } = *self;
        Scales {
            guidance: guidance_scale,
            rescale: guidance_rescale,
            skip_layers: skip_layers.map(|skip| skip.scale),
        }
        .check()?;
        if let Some(SkipLayers { start, stop, .. }) = skip_layers {
            finite("skip_layer_guidance_start", start)?;
            finite("skip_layer_guidance_stop", stop)?;
        }
        if cfg_degree > 1 && guidance_scale <= 1.0 {
            return Err(Error::OneBranch { guidance_scale });
        }
        Ok(())
    }

    /// Returns the scales of one step of `steps`.
    pub fn scales(&self, step: usize, steps: usize) -> Scales {
        let skip_layers = self
            .skip_layers
            .filter(|skip| skip.is_active(step, steps))
            .map(|skip| skip.scale);
        Scales {
            guidance: self.guidance_scale,
            rescale: self.guidance_rescale,
            skip_layers,
        }
    }
}

/// The guidance of one step. [`GuidancePlan::scales`] returns it, or the caller chooses other scales in each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Guidance scale. 1 or less is no guidance.
    pub guidance: f32,
    /// Share of the prediction that is rescaled. 0 is no rescale.
    pub rescale: f32,
    /// Scale of skip-layer guidance; `None` in a step without that branch.
    pub skip_layers: Option<f32>,
}

impl Scales {
    /// Returns the branches that the step needs, in order: one without guidance, two with it, three with skip-layer guidance.
    pub fn branches(&self) -> &'static [Branch] {
        match (self.guidance > 1.0, self.skip_layers) {
            (false, _) => &Branch::ALL[..1],
            (true, None) => &Branch::ALL[..2],
            (true, Some(_)) => Branch::ALL,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        finite("guidance_scale", self.guidance.into())?;
        finite("guidance_rescale", self.rescale.into())?;
        if self.rescale < 0.0 {
            return Err(Error::Scale {
                name: "guidance_rescale",
                expected: "at least 0",
                got: self.rescale.into(),
            });
        }
        self.skip_layers.map_or(Ok(()), |scale| {
            finite("skip_layer_guidance_scale", scale.into())
        })
    }
}

fn finite(name: &'static str, got: f64) -> Result<()> {
    if got.is_finite() {
        return Ok(());
    }
    let expected = "a finite number";
    Err(Error::Scale {
        name,
        expected,
        got,
    })
}

pub(crate) fn check_degree(got: usize) -> Result<()> {
    match got {
        1 | 2 => Ok(()),
        _ => Err(Error::Degree { got }),
    }
}
