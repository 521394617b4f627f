//! Operands and sizes of one product.

use super::{finish::Finish, form::Form, input::Input, weights::PackedLinear};
use crate::{
    Tier,
    simd::microkernel::{self, Kernel},
};

/// One call: rows of the input times the weights, finished.
pub(super) struct MatrixProduct<'a, F: Form> {
    pub(super) weights: &'a PackedLinear,
    pub(super) input: &'a Input<'a>,
    pub(super) finish: &'a Finish<'a>,
    pub(super) kernel: Kernel<F::A, F::B>,
    /// The kernel for weights that were widened to f32.
    pub(super) wide: Kernel<f32, f32>,
    pub(super) tier: Tier,
    /// k of a panel, padding included.
    pub(super) deep: usize,
    /// k's that are summed in one chain, as [`Form::block`] says.
    pub(super) block: usize,
}

impl<'a, F: Form> MatrixProduct<'a, F> {
    pub(super) fn new(
        weights: &'a PackedLinear,
        input: &'a Input<'a>,
        finish: &'a Finish<'a>,
    ) -> Self {
        let tier = weights.tier;
        Self {
            weights,
            input,
            finish,
            kernel: F::kernel(tier),
            wide: microkernel::packed(tier),
            tier,
            deep: weights.deep(),
            block: F::block(tier),
        }
    }
}
