//! The rows of an image's streams that each rank holds.

use crate::ranks::degrees::Degrees;
use xdit_comm::Shard;
use xdit_kernels::attention::Segment;
use xdit_kernels::{Tensor, View};
use xdit_pipefusion::{Part, PatchPlan};
use xdit_usp::{SequencePlan, ShardOrder};

use crate::error::Result;

/// One rank's rows of the text and of each patch. Each patch is a separate stream, divided among the ranks like the text. A
/// rank therefore has the same rows of a patch whether the patch runs alone or with all others.
#[derive(Debug)]
pub(crate) struct StreamLayout {
    /// `None` where no other rank has rows.
    plan: Option<SequencePlan>,
    patches: PatchPlan,
    text: Segment,
    image: Vec<Segment>,
}

/// Text is stream 0.
const TEXT: usize = 0;

impl StreamLayout {
    pub(super) fn new(
        plan: Option<SequencePlan>,
        rank: usize,
        text_len: usize,
        patches: PatchPlan,
    ) -> Self {
        let segment = |stream: usize, total: usize| {
            let rows = rows(plan, total, rank);
            Segment {
                stream,
                start: rows.start,
                len: rows.len,
                total,
            }
        };
        Self {
            plan,
            patches,
            text: segment(TEXT, text_len),
            image: (0..patches.count())
                .map(|patch| segment(TEXT + 1 + patch, patches.tokens(patch).len))
                .collect(),
        }
    }

    /// Creates the layout of a rank (`ulysses + U · ring`) on a mesh of these degrees.
    pub(crate) fn of_rank(
        degrees: Degrees,
        rank: usize,
        text_len: usize,
        patches: PatchPlan,
    ) -> Self {
        let plan = SequencePlan {
            ring: degrees.ring,
            ulysses: degrees.ulysses,
            order: ShardOrder::Contiguous,
        };
        Self::new(Some(plan), rank, text_len, patches)
    }

    /// The number of rows of all streams.
    pub(crate) fn rows(&self) -> usize {
        self.text.len + self.image_rows(Part::Whole)
    }

    /// Returns the rows of the text, if the part has text.
    pub(crate) fn text(&self, part: Part) -> Option<Segment> {
        part.has_text().then_some(self.text)
    }

    /// Returns the rows of each patch of a part, each with the position of the patch's first token in the image.
    pub(crate) fn image(&self, part: Part) -> Vec<(usize, Segment)> {
        part.patches(self.patches.count())
            .map(|patch| (self.patches.tokens(patch).start, self.image[patch]))
            .collect()
    }

    /// Returns the number of rows of image tokens of a part.
    pub(crate) fn image_rows(&self, part: Part) -> usize {
        self.image(part).iter().map(|(_, rows)| rows.len).sum()
    }

    /// Returns the number of rows of image tokens of a rank.
    pub(super) fn image_rows_of(&self, rank: usize) -> usize {
        let count = self.patches.count();
        (0..count)
            .map(|patch| rows(self.plan, self.patches.tokens(patch).len, rank).len)
            .sum()
    }

    /// Returns this rank's rows of a whole text `[b, l, ..]`.
    pub(crate) fn shard_text(&self, whole_blc: &Tensor) -> Result<Tensor> {
        narrow(whole_blc, self.text.start, self.text.len)
    }

    /// Returns this rank's rows of a patch of a whole image `[b, l, ..]`.
    pub(crate) fn shard_patch(&self, whole_blc: &Tensor, patch: usize) -> Result<Tensor> {
        let start = self.patches.tokens(patch).start + self.image[patch].start;
        narrow(whole_blc, start, self.image[patch].len)
    }

    /// Joins every rank's rows of all patches to the whole image `[b, l, ..]`.
    pub(super) fn assemble(&self, ranks: &[Tensor]) -> Result<Tensor> {
        let mut at = vec![0; ranks.len()];
        let mut views: Vec<View<'_>> = Vec::new();
        for patch in 0..self.patches.count() {
            let total = self.patches.tokens(patch).len;
            for (rank, part) in ranks.iter().enumerate() {
                let len = rows(self.plan, total, rank).len;
                views.push(part.view().narrow(1, at[rank], len)?);
                at[rank] += len;
            }
        }
        Ok(Tensor::cat(&views, 1)?)
    }
}

/// Returns the rows of a stream that a rank holds. Ranks are `ulysses + U · ring`, so their rows follow each other.
fn rows(plan: Option<SequencePlan>, total: usize, rank: usize) -> Shard {
    match plan {
        None => Shard {
            start: 0,
            len: total,
        },
        Some(plan) => plan.runs(total, rank / plan.ulysses, rank % plan.ulysses)[0],
    }
}

fn narrow(whole_blc: &Tensor, start: usize, len: usize) -> Result<Tensor> {
    if len == whole_blc.dim(1) {
        return Ok(whole_blc.clone());
    }
    Ok(whole_blc.view().narrow(1, start, len)?.to_tensor()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xdit_kernels::Device;

    proptest! {
        #[test]
        fn what_ranks_hold_is_the_image(
            rows in 1usize..12, columns in 1usize..6, cut in 0usize..12,
            ring in 1usize..4, ulysses in 1usize..4, text_len in 0usize..9,
        ) {
            let patches = PatchPlan::new(rows, columns, 1 + cut % rows).unwrap();
            let plan = SequencePlan { ring, ulysses, order: ShardOrder::Contiguous };
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let whole = Tensor::from_slice(&values, [1, rows * columns, 1], &Device::cpu()).unwrap();
            let mut text = 0;
            let parts: Vec<Tensor> = (0..ring * ulysses)
                .map(|rank| {
                    let layout = StreamLayout::new(Some(plan), rank, text_len, patches);
                    text += layout.text(Part::Patch(0)).unwrap().len;
                    assert!(layout.text(Part::Patch(1)).is_none());
                    let mine: Vec<Tensor> = (0..patches.count())
                        .map(|patch| layout.shard_patch(&whole, patch).unwrap())
                        .collect();
                    let views: Vec<_> = mine.iter().map(Tensor::view).collect();
                    let mine = Tensor::cat(&views, 1).unwrap();
                    assert_eq!(mine.dim(1), layout.image_rows(Part::Whole));
                    assert_eq!(mine.dim(1), layout.image_rows_of(rank));
                    mine
                })
                .collect();
            prop_assert_eq!(text, text_len);
            let layout = StreamLayout::new(Some(plan), 0, text_len, patches);
            prop_assert_eq!(layout.assemble(&parts).unwrap().to_vec_blocking::<f32>().unwrap(), values);
        }
    }
}
