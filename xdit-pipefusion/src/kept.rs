use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xdit_kernels::{Result, sums::RunningSums};

/// What the [`StaleKv`](crate::StaleKv)s of one rank hold, and what they have measured: a handle that they share with the
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
    /// The numbers of a [`Change`], where they are summed up; `None` while nothing was compared.
    change: Option<RunningSums>,
}

/// How far keys and values are from those of the step before, as sums over sampled tokens of squares.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Change {
    /// Of fresh − stale.
    pub(crate) moved: f64,
    /// Of the fresh.
    pub(crate) norm: f64,
}

impl Change {
    /// Of the two sums.
    pub(crate) fn of(sums: &[f64]) -> Self {
        match sums {
            [moved, norm, ..] => Self {
                moved: *moved,
                norm: *norm,
            },
            _ => Self::default(),
        }
    }

    /// The relative L2 distance; `None` where nothing, or nothing but zeros, was compared. What is not a number stays so.
    pub(crate) fn relative(&self) -> Option<f32> {
        (self.moved != 0.0 || self.norm != 0.0).then(|| (self.moved / self.norm).sqrt() as f32)
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Totals> {
        // Sums stay sums whatever a panicking holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all keys and values that are kept, those of layers that are gone included: a handle serves one image.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(crate) fn holds(&self, bytes: usize) {
        self.lock().bytes += bytes;
    }

    /// Adds the two sums that a [`Change`] is made of, which stay on their device.
    pub(crate) fn changed(&self, change: RunningSums) -> Result<()> {
        match &mut self.lock().change {
            Some(total) => total.add(0, &change)?,
            total => *total = Some(change),
        }
        Ok(())
    }

    /// What was measured since it was last asked, if anything was.
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
