//! Refuses arguments that a model does not support.

use super::fields::Request;
use crate::error::{Error, Result};

impl Request {
    /// Returns an error if any of these arguments is given.
    pub(crate) fn refuse(&self, given: &[(&'static str, bool)]) -> Result<()> {
        match given.iter().find(|(_, given)| *given) {
            Some((argument, _)) => Err(Error::left_out(argument, "this model has no use for it")),
            None => Ok(()),
        }
    }

    /// Returns an error if an argument of HunyuanDiT is given, or a scheduler that is not one of `schedulers`.
    pub(crate) fn refuse_conditions(&self, schedulers: &[&str]) -> Result<()> {
        self.check_scheduler(schedulers)?;
        self.refuse(&[
            ("guidance_rescale", self.guidance_rescale != 0.0),
            (
                "use_resolution_binning",
                self.use_resolution_binning.is_some(),
            ),
            ("exact_diffusers", self.exact_diffusers == Some(true)),
        ])?;
        self.refuse_sizes()
    }

    /// Returns an error if sizes are given as inputs of a model without such inputs.
    pub(crate) fn refuse_sizes(&self) -> Result<()> {
        self.refuse(&[
            ("original_size", self.original_size.is_some()),
            ("target_size", self.target_size.is_some()),
            (
                "crops_coords_top_left",
                self.crops_coords_top_left.is_some(),
            ),
        ])
    }

    /// Returns an error if the request names a scheduler that is not one of these.
    pub(crate) fn check_scheduler(&self, schedulers: &[&str]) -> Result<()> {
        match &self.scheduler {
            Some(name) if !schedulers.contains(&name.as_str()) => {
                let allowed = match schedulers {
                    [one] => format!("{one}: this model has no other"),
                    several => format!("one of {}", several.join(", ")),
                };
                Err(Error::invalid("scheduler", name, allowed))
            }
            _ => Ok(()),
        }
    }
}
