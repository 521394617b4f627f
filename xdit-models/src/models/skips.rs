//! Outputs of blocks that later blocks read, in a U-shaped model.

use std::collections::BTreeMap;

use xdit_kernels::Tensor;

use crate::error::Result;

/// The outputs wait here under the number of their block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips(BTreeMap<usize, Tensor>);

impl Skips {
    /// Stores the output of a block.
    pub(crate) fn put(&mut self, block: usize, output: Tensor) {
        self.0.insert(block, output);
    }

    /// Removes and returns the output of a block, which only one later block reads.
    pub(crate) fn take(&mut self, block: usize) -> Result<Tensor> {
        self.0.remove(&block).ok_or_else(|| {
            xdit_kernels::Error::shape(
                "skip",
                format!("the output of block {block}"),
                format_args!("none"),
            )
            .into()
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
