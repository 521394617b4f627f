//! Outputs of blocks that later blocks read again, in a U-shaped model.

use std::collections::BTreeMap;

use xdit_kernels::Tensor;

use crate::error::Result;

/// They wait here between the two, under the number of the block that made them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips(BTreeMap<usize, Tensor>);

impl Skips {
    /// Keeps what a block made.
    pub(crate) fn put(&mut self, block: usize, output: Tensor) {
        self.0.insert(block, output);
    }

    /// What a block made, which nobody reads a third time.
    pub(crate) fn take(&mut self, block: usize) -> Result<Tensor> {
        self.0.remove(&block).ok_or_else(|| {
            xdit_kernels::Error::shape("skip", format!("the output of block {block}"), "none")
                .into()
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
