use crate::{Blocks, Error, Placement, Result, error::What};
use std::ops::Range;

/// The blocks of each stage. Each stage has at least one block. The blocks of a stage are consecutive or, in a folded pipeline,
/// symmetric: the same blocks counted from both ends of the model.
///
/// # Examples
/// ```
/// use xdit_pipefusion::StagePlan;
/// // The last block costs as much as all others together.
/// let plan = StagePlan::balanced(&[1.0, 1.0, 1.0, 3.0], 2)?;
/// assert_eq!(plan.counts(), [3, 1]);
/// assert_eq!(plan.blocks(1), (3..4).into());
/// assert!(StagePlan::explicit(&[4, 0], 4).is_err(), "a stage is never empty");
/// // Of 8 blocks, 0 and 7 are a pair, 1 and 6 the next, and so on: the plan divides pairs into stages.
/// let plan = StagePlan::balanced(&[1.0, 1.0, 1.0, 3.0], 2)?.folded();
/// assert_eq!(plan.blocks(0).iter().collect::<Vec<_>>(), [0, 1, 2, 5, 6, 7]);
/// assert_eq!((0..3).map(|leg| plan.leg(leg)).collect::<Vec<_>>(), [0..3, 3..5, 5..8]);
/// # Ok::<(), xdit_pipefusion::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StagePlan {
    /// The first block of each stage, then the number of blocks. In a folded pipeline, of the first half of the model.
    bounds: Vec<usize>,
    placement: Placement,
}

impl StagePlan {
    /// Divides blocks of these costs into `stages`, so that the cost of the most expensive stage is as small as possible. Among
    /// equal plans, it chooses the one with the smallest sum of squared costs.
    ///
    /// # Errors
    /// [`Error::Plan`] if there are fewer blocks than stages, no stage, or a cost that is negative or not a number.
    pub fn balanced(costs: &[f64], stages: usize) -> Result<Self> {
        let blocks = costs.len();
        check_count(blocks, stages)?;
        if let Some(cost) = costs
            .iter()
            .find(|cost| !(cost.is_finite() && **cost >= 0.0))
        {
            return Err(Error::plan(What::Costs, cost, "a number from 0 up"));
        }
        let mut sums = vec![0.0; blocks + 1];
        for (i, cost) in costs.iter().enumerate() {
            sums[i + 1] = sums[i] + cost;
        }
        let bottleneck = cheapest(&sums, stages, f64::max).0;
        let within = |squares: f64, stage: f64| match stage <= bottleneck {
            true => squares + stage * stage,
            false => f64::INFINITY,
        };
        let (_, bounds) = cheapest(&sums, stages, within);
        Ok(Self::linear(bounds))
    }

    /// Creates stages with these numbers of blocks.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no stage, a stage is empty, or the stages together do not have `blocks` blocks.
    pub fn explicit(counts: &[usize], blocks: usize) -> Result<Self> {
        let total = counts
            .iter()
            .try_fold(0usize, |sum, count| sum.checked_add(*count));
        // A folded pipeline has twice as many blocks.
        let counted = total == Some(blocks) && blocks.checked_mul(2).is_some();
        if counts.is_empty() || counts.contains(&0) || !counted {
            let allowed = format!("at least 1 each and {blocks} in all, the blocks of the model");
            let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
            return Err(Error::plan(What::Blocks, counts.join(","), allowed));
        }
        let mut bounds = vec![0];
        for count in counts {
            bounds.push(bounds[bounds.len() - 1] + count);
        }
        Ok(Self::linear(bounds))
    }

    fn linear(bounds: Vec<usize>) -> Self {
        Self {
            bounds,
            placement: Placement::Linear,
        }
    }

    /// Returns the same division of pairs: for a model of twice as many blocks, each stage has its blocks and the blocks at the
    /// same distance from the end.
    #[must_use]
    pub fn folded(self) -> Self {
        Self {
            placement: Placement::Folded,
            ..self
        }
    }

    /// Returns how a pass goes through the stages.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Returns the number of stages.
    pub fn count(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Returns the blocks of a stage.
    ///
    /// # Panics
    /// If the stage does not exist.
    pub fn blocks(&self, stage: usize) -> Blocks {
        Blocks::new(self.ranges(stage))
    }

    /// Returns the blocks of a leg ([`Placement`]), which follow each other.
    ///
    /// # Panics
    /// If the leg does not exist.
    pub fn leg(&self, leg: usize) -> Range<usize> {
        let stage = self.placement.stage(leg, self.count());
        let ranges = self.ranges(stage);
        let legs = self.placement.legs_of(stage, self.count());
        match legs.iter().position(|own| *own == leg) {
            Some(own) if legs.len() == ranges.len() => ranges[own].clone(),
            // The last stage of a folded pipeline runs all its blocks in one leg.
            _ => ranges[0].start..ranges[ranges.len() - 1].end,
        }
    }

    /// Returns the stage that holds a block.
    ///
    /// # Panics
    /// If the block does not exist.
    pub fn stage_of(&self, block: usize) -> usize {
        let mut stages = 0..self.count();
        let found = stages.find(|stage| self.blocks(*stage).contains(block));
        found.unwrap_or_else(|| panic!("there is no block {block}"))
    }

    fn ranges(&self, stage: usize) -> Vec<Range<usize>> {
        let blocks = match self.placement {
            Placement::Linear => self.bounds[self.count()],
            Placement::Folded => 2 * self.bounds[self.count()],
        };
        let cut = self.bounds[stage]..self.bounds[stage + 1];
        self.placement.ranges(cut, blocks)
    }

    /// Returns the number of blocks of each stage.
    pub fn counts(&self) -> Vec<usize> {
        (0..self.count())
            .map(|stage| self.blocks(stage).len())
            .collect()
    }
}

/// Returns the division with the smallest total, and that total. `add` combines the total of earlier stages with the cost of a
/// stage, and must not decrease when the total grows. `sums[i]` is the cost of the first i blocks.
fn cheapest(sums: &[f64], stages: usize, add: impl Fn(f64, f64) -> f64) -> (f64, Vec<usize>) {
    let blocks = sums.len() - 1;
    // best[end]: the best total of the blocks ..end over the stages so far. cuts[stage][end]: the first block of the last of
    // these stages.
    let mut best: Vec<f64> = sums.iter().map(|sum| add(0.0, *sum)).collect();
    let mut cuts = vec![vec![0; blocks + 1]];
    for stage in 1..stages {
        let (next, cut) = (0..=blocks)
            .map(|end| {
                (stage..end)
                    .map(|start| (add(best[start], sums[end] - sums[start]), start))
                    .min_by(|a, b| a.0.total_cmp(&b.0))
                    .unwrap_or((f64::INFINITY, 0))
            })
            .unzip();
        best = next;
        cuts.push(cut);
    }
    let mut bounds = vec![blocks];
    for cut in cuts.iter().rev() {
        bounds.push(cut[bounds[bounds.len() - 1]]);
    }
    bounds.reverse();
    (best[blocks], bounds)
}

fn check_count(blocks: usize, stages: usize) -> Result<()> {
    if (1..=blocks).contains(&stages) {
        return Ok(());
    }
    let allowed = format!("from 1 to {blocks}, the blocks of the model");
    Err(Error::plan(What::Stages, stages, allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every cut into stages: what its most expensive stage and all squares together come to.
    fn every(costs: &[f64], stages: usize) -> Vec<(f64, f64)> {
        if stages == 1 {
            let cost: f64 = costs.iter().sum();
            return vec![(cost, cost * cost)];
        }
        (1..=costs.len() - (stages - 1))
            .flat_map(|end| {
                let head: f64 = costs[..end].iter().sum();
                every(&costs[end..], stages - 1)
                    .into_iter()
                    .map(move |(worst, squares)| (head.max(worst), head * head + squares))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn no_cut_is_better(costs in prop::collection::vec(0u32..50, 1..9), cut in 0usize..9) {
            let costs: Vec<f64> = costs.into_iter().map(f64::from).collect();
            let stages = 1 + cut % costs.len();
            let plan = StagePlan::balanced(&costs, stages).unwrap();
            prop_assert_eq!(plan.count(), stages);
            prop_assert_eq!(plan.counts().iter().sum::<usize>(), costs.len());
            prop_assert!(plan.counts().iter().all(|count| *count >= 1));
            let of = |stage| plan.blocks(stage).iter().map(|block| costs[block]).sum::<f64>();
            let worst = (0..stages).map(of).fold(0.0, f64::max);
            let squares: f64 = (0..stages).map(|stage| of(stage).powi(2)).sum();
            let best = every(&costs, stages)
                .into_iter()
                .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            prop_assert_eq!(Some((worst, squares)), best);
        }
    }

    proptest! {
        #[test]
        fn every_block_has_one_stage_and_one_leg(pairs in 1usize..9, cut in 0usize..9, folded: bool) {
            let stages = 1 + cut % pairs;
            let mut plan = StagePlan::balanced(&vec![1.0; pairs], stages).unwrap();
            let mut blocks = pairs;
            if folded {
                (plan, blocks) = (plan.folded(), 2 * pairs);
            }
            let legs = 0..plan.placement().legs(stages);
            let walk: Vec<usize> = legs.clone().flat_map(|leg| plan.leg(leg)).collect();
            prop_assert_eq!(walk, (0..blocks).collect::<Vec<_>>());
            for leg in legs {
                let stage = plan.placement().stage(leg, stages);
                prop_assert!(plan.blocks(stage).place(&plan.leg(leg)).is_some());
                prop_assert!(plan.leg(leg).all(|block| plan.stage_of(block) == stage));
            }
            prop_assert_eq!(plan.counts().iter().sum::<usize>(), blocks);
            // Both ends of a skip are on one stage.
            let other = |block: usize| blocks - 1 - block;
            prop_assert!(!folded || (0..blocks).all(|b| plan.stage_of(b) == plan.stage_of(other(b))));
        }
    }

    #[test]
    fn equal_blocks_are_spread_evenly() {
        // xDiT gives 57 blocks over 8 stages as 8 × 7 + 1, and leaves the sixteenth of 16 without any.
        let flux = [1.0; 57];
        let counts = StagePlan::balanced(&flux, 8).unwrap().counts();
        assert!(
            counts.iter().all(|count| [7, 8].contains(count)),
            "{counts:?}"
        );
        let counts = StagePlan::balanced(&flux, 16).unwrap().counts();
        assert!(
            counts.iter().all(|count| [3, 4].contains(count)),
            "{counts:?}"
        );
        assert_eq!(StagePlan::balanced(&flux, 57).unwrap().counts(), [1; 57]);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        for stages in [0, 4] {
            let message = StagePlan::balanced(&[1.0; 3], stages)
                .unwrap_err()
                .to_string();
            assert!(message.contains("from 1 to 3"), "{message}");
        }
        for counts in [&[][..], &[3, 0], &[1, 1], &[2, 2], &[usize::MAX, 4]] {
            let message = StagePlan::explicit(counts, 3).unwrap_err().to_string();
            assert!(message.contains("3 in all"), "{message}");
        }
        assert!(StagePlan::balanced(&[f64::NAN], 1).is_err());
    }
}
