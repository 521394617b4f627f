use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xdit_kernels::{Result, sums::RunningSums};

/// The memory and the measurements of all [`StaleKv`](crate::StaleKv)s of one rank, which share this handle with the
/// [`Driver`](crate::Driver).
///
/// # Examples
/// ```
/// let kept = xdit_pipefusion::Kept::default();
/// assert_eq!(kept.bytes(), 0);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<Mutex<Totals>>);

#[derive(Debug, Default)]
struct Totals {
    bytes: usize,
    /// The two numbers of a [`Change`], as running sums. `None` while nothing was compared.
    change: Option<RunningSums>,
}

/// The change of keys and values since the previous step, as sums of squares over sampled tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Change {
    /// The sum of (fresh − stale)².
    pub(crate) moved: f64,
    /// The sum of fresh².
    pub(crate) norm: f64,
}

impl Change {
    /// Creates a change from the two sums.
    pub(crate) fn of(sums: &[f64]) -> Self {
        match sums {
            [moved, norm, ..] => Self {
                moved: *moved,
                norm: *norm,
            },
            _ => Self::default(),
        }
    }

    /// Returns the relative L2 distance. `None` if nothing, or only zeros, were compared. NaN stays NaN.
    pub(crate) fn relative(&self) -> Option<f32> {
        (self.moved != 0.0 || self.norm != 0.0).then(|| (self.moved / self.norm).sqrt() as f32)
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Totals> {
        // The sums stay valid even if a holder of the lock panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes of all kept keys and values, including those of dropped layers. A handle serves one image.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(crate) fn holds(&self, bytes: usize) {
        self.lock().bytes += bytes;
    }

    /// Adds the two sums of a [`Change`], which stay on their device.
    pub(crate) fn changed(&self, change: RunningSums) -> Result<()> {
        match &mut self.lock().change {
            Some(total) => total.add(0, &change)?,
            total => *total = Some(change),
        }
        Ok(())
    }

    /// Returns the measurements since the last call, if there are any.
    pub(crate) fn take_change(&self) -> Option<RunningSums> {
        self.lock().change.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::{Device, Tensor};

    fn relative(pairs: &[(f32, f32)]) -> Option<f32> {
        let mut change = Change::default();
        for (fresh, stale) in pairs {
            change.moved += f64::from(fresh - stale).powi(2);
            change.norm += f64::from(*fresh).powi(2);
        }
        change.relative()
    }

    #[test]
    fn change_is_relative_to_the_fresh() {
        assert_eq!(relative(&[]), None);
        assert_eq!(relative(&[(0.0, 0.0)]), None);
        assert_eq!(relative(&[(3.0, 3.0), (4.0, -1.0)]), Some(1.0));
        // Everything has changed, and there is nothing to compare it with.
        assert_eq!(relative(&[(0.0, 1.0)]), Some(f32::INFINITY));
        assert!(relative(&[(f32::NAN, 1.0)]).unwrap().is_nan());
    }

    #[test]
    fn handles_share_what_was_measured_until_it_is_taken() {
        let kept = Kept::default();
        let device = &Device::cpu();
        let tensor = |value: f32| Tensor::from_slice(&[value], [1, 1], device).unwrap();
        let mut change = RunningSums::zeros(2, device).unwrap();
        change
            .add_distance(0, &tensor(1.0), &tensor(3.0), 0, 1)
            .unwrap();
        kept.clone().changed(change.clone()).unwrap();
        kept.clone().changed(change).unwrap();
        assert_eq!(device.host_reads(), 0);
        let twice = kept.take_change().unwrap();
        assert_eq!(twice.to_vec_blocking(0..2).unwrap(), [8.0, 2.0]);
        assert!(kept.take_change().is_none());
    }
}
