use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    change: Change,
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
    /// The relative L2 distance; `None` where nothing, or nothing but zeros, was compared. What is not a number stays so.
    pub(crate) fn relative(&self) -> Option<f32> {
        (self.moved != 0.0 || self.norm != 0.0).then(|| (self.moved / self.norm).sqrt() as f32)
    }

    pub(crate) fn add(&mut self, fresh: f32, stale: f32) {
        let (fresh, stale) = (f64::from(fresh), f64::from(stale));
        self.moved += (fresh - stale).powi(2);
        self.norm += fresh.powi(2);
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

    pub(crate) fn changed(&self, change: Change) {
        let total = &mut self.lock().change;
        total.moved += change.moved;
        total.norm += change.norm;
    }

    /// What was measured since it was last asked.
    pub(crate) fn take_change(&self) -> Change {
        std::mem::take(&mut self.lock().change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative(pairs: &[(f32, f32)]) -> Option<f32> {
        let mut change = Change::default();
        for (fresh, stale) in pairs {
            change.add(*fresh, *stale);
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
        let mut change = Change::default();
        change.add(1.0, 2.0);
        kept.clone().changed(change);
        kept.clone().changed(change);
        let twice = kept.take_change();
        assert_eq!((twice.moved, twice.norm), (2.0, 2.0));
        assert_eq!(kept.take_change(), Change::default());
    }
}
