//! The branches of guidance.

/// One pass of the model over the same latents.
///
/// The order is that of predictions everywhere in this crate. The conditional branch is the first, so that a step without
/// guidance is its first branch and nothing else. (Batches of diffusers and of xDiT have the unconditional one first.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Branch {
    /// With the prompt.
    Conditional,
    /// With the negative prompt, or an empty one.
    Unconditional,
    /// With the prompt, some blocks of the transformer left out.
    SkipLayers,
}

impl Branch {
    /// In order.
    pub const ALL: &'static [Self] = &[Self::Conditional, Self::Unconditional, Self::SkipLayers];

    /// Those of `all` that one of `degree` ranks computes: the conditional one is the first rank's, the others the second's.
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

    /// Its place in the order of branches, for arrays of prompts or attention states.
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
