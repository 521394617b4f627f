//! Instructions on single values: each is a function of up to three values of 64 bits.

mod bits;
mod compare;
mod convert;
mod float;
mod float64;
mod half;
mod integer;
mod modifiers;
mod rounding;

pub(crate) use bits::{insert, lop3};
pub(crate) use compare::{Compare, compare};
pub(crate) use convert::{Conversion, conversion};
pub(crate) use half::{Bf16, F16, Narrow};
pub(crate) use rounding::Rounding;

use modifiers::Modifiers;

/// The result of an instruction for its operands; an instruction with fewer operands ignores the rest.
pub(crate) type ScalarFn = fn(u64, u64, u64) -> u64;

/// A scalar instruction: its function and the number of its operands.
#[derive(Clone, Copy)]
pub(crate) struct Scalar {
    pub(crate) f: ScalarFn,
    pub(crate) operands: usize,
}

/// The scalar instruction that an opcode names, or `None`.
pub(crate) fn scalar(opcode: &[&str]) -> Option<Scalar> {
    let modifiers = Modifiers::of(opcode)?;
    let found = integer::lookup(&modifiers)
        .or_else(|| bits::lookup(&modifiers))
        .or_else(|| float::lookup(&modifiers))
        .or_else(|| float64::lookup(&modifiers))
        .or_else(|| half::lookup(&modifiers));
    found.map(|(f, operands)| Scalar { f, operands })
}

/// What a lookup gives: the function and the number of operands.
type Found = Option<(ScalarFn, usize)>;
