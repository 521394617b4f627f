//! The branches of guidance.

use std::fmt;

/// One pass of the model over the same latents.
///
/// Predictions have this order everywhere in this crate. The conditional branch is the first one, so a step without guidance runs
/// only the first branch. (Batches in diffusers and xDiT have the unconditional branch first.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Branch {
    /// With the prompt.
    Conditional,
    /// With the negative prompt or an empty prompt.
    Unconditional,
    /// With the prompt and without some blocks of the transformer.
    SkipLayers,
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conditional => "conditional",
            Self::Unconditional => "unconditional",
            Self::SkipLayers => "skip-layer",
        })
    }
}

impl Branch {
    /// All branches, in order.
    pub const ALL: &'static [Self] = &[Self::Conditional, Self::Unconditional, Self::SkipLayers];

    /// Returns the branches of `all` that one of `degree` ranks computes: the first of two ranks computes the conditional branch, the
    /// second computes the others.
    ///
    /// # Examples
    /// ```
    /// use xdit_cfg::Branch;
    /// assert_eq!(Branch::of_rank(Branch::ALL, 2, 1), [Branch::Unconditional, Branch::SkipLayers]);
    /// assert_eq!(Branch::of_rank(Branch::ALL, 1, 0), Branch::ALL);
    /// ```
    pub fn of_rank(all: &'static [Self], degree: usize, rank: usize) -> &'static [Self] {
        match (all, degree) {
            ([_, _, ..], 2) => {
                let (first, others) = all.split_at(1);
                if rank == 0 { first } else { others }
            }
            _ => all,
        }
    }

    /// Returns the position of the branch in the order of branches, to index arrays of prompts or attention states.
    ///
    /// # Examples
    /// ```
    /// use xdit_cfg::Branch;
    /// assert_eq!(["a cat", "blurry"][Branch::Unconditional.index()], "blurry");
    /// ```
    pub fn index(self) -> usize {
        self as usize
    }
}
