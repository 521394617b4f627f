use crate::{Error, Result, error::What};
use xdit_comm::Shard;

/// Divides the rows of an image into patches of whole rows. The sizes of two patches differ by at most one row.
///
/// Rows are those of the grid of image tokens.
///
/// # Examples
/// ```
/// use xdit_pipefusion::PatchPlan;
/// let patches = PatchPlan::new(7, 5, 3)?;
/// let rows: Vec<_> = (0..3).map(|patch| patches.rows(patch).len).collect();
/// assert_eq!(rows, [3, 2, 2]);
/// assert_eq!((patches.tokens(1).start, patches.tokens(1).len), (15, 10));
/// assert!(PatchPlan::new(7, 5, 8).is_err(), "a patch is never empty");
/// # Ok::<(), xdit_pipefusion::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchPlan {
    rows: usize,
    row_tokens: usize,
    count: usize,
}

impl PatchPlan {
    /// `count` patches of `rows` rows of `row_tokens` tokens each.
    ///
    /// # Errors
    /// [`Error::Plan`] if there are fewer rows than patches, no patch, or too many tokens to count.
    pub fn new(rows: usize, row_tokens: usize, count: usize) -> Result<Self> {
        if !(1..=rows).contains(&count) {
            let allowed = format!("from 1 to {rows}, the rows of image tokens");
            return Err(Error::plan(What::Patches, count, allowed));
        }
        if rows.checked_mul(row_tokens).is_none() {
            let allowed = format!("of fewer tokens than {rows} rows of {row_tokens}");
            return Err(Error::plan(What::Patches, count, allowed));
        }
        Ok(Self {
            rows,
            row_tokens,
            count,
        })
    }

    /// Returns the number of patches.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the number of tokens of the image.
    pub fn image_tokens(&self) -> usize {
        self.rows * self.row_tokens
    }

    /// Returns the rows of a patch.
    ///
    /// # Panics
    /// If the patch does not exist.
    pub fn rows(&self, patch: usize) -> Shard {
        Shard::of(self.rows, self.count, patch)
    }

    /// Returns the tokens of a patch, which follow each other in the image.
    ///
    /// # Panics
    /// If the patch does not exist.
    pub fn tokens(&self, patch: usize) -> Shard {
        let rows = self.rows(patch);
        Shard {
            start: rows.start * self.row_tokens,
            len: rows.len * self.row_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Part, Placement, Schedule, StepTraffic, turn_order::TurnOrder};
    use proptest::prelude::*;

    /// Small ones, and those that wrap when they are doubled or multiplied.
    fn any_size() -> impl Strategy<Value = usize> {
        prop_oneof![
            0usize..100,
            any::<usize>(),
            (0usize..4).prop_map(|n| usize::MAX - n)
        ]
    }

    proptest! {
        #[test]
        fn patches_are_even_and_cover_the_image(rows in 1usize..200, row_tokens in 1usize..9, cut in 0usize..200) {
            let count = 1 + cut % rows;
            let plan = PatchPlan::new(rows, row_tokens, count).unwrap();
            let mut next = 0;
            for patch in 0..count {
                prop_assert_eq!(plan.tokens(patch).start, next);
                next = plan.tokens(patch).end();
                prop_assert!(plan.rows(patch).len >= 1);
            }
            prop_assert_eq!(next, plan.image_tokens());
            let lens: Vec<_> = (0..count).map(|patch| plan.rows(patch).len).collect();
            prop_assert!(lens.iter().max().unwrap() - lens.iter().min().unwrap() <= 1);
        }
    }

    proptest! {
        #[test]
        fn no_size_wraps(rows in any_size(), row_tokens in any_size(), count in any_size(), at in any::<usize>()) {
            if let Ok(plan) = PatchPlan::new(rows, row_tokens, count) {
                let tokens = plan.tokens(at % count);
                prop_assert!(tokens.end() <= plan.image_tokens());
                for placement in [Placement::Linear, Placement::Folded] {
                    let _ = TurnOrder::new(placement, at % count, count, rows);
                }
                let lossy = Schedule { steps: row_tokens, warmup_steps: at, patches: count }.is_lossy();
                prop_assert_eq!(lossy, count > 1 && row_tokens > at.max(1));
                let traffic = StepTraffic::new(&[Part::Whole], &plan, at, rows, count);
                prop_assert!(traffic.back.bytes >= plan.image_tokens() || count == 0);
            }
        }
    }

    #[test]
    fn no_patches_are_refused_with_the_number_allowed() {
        let message = PatchPlan::new(4, 4, 0).unwrap_err().to_string();
        assert_eq!(
            message,
            "number of pipeline patches: 0, but must be from 1 to 4, the rows of image tokens"
        );
    }
}
