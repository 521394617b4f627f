//! The key mask.

use super::{Dims, OP, tile::KEYS};
use crate::{Result, vector::reserved};

/// The key mask as the kernel reads it.
pub(super) struct Seen {
    /// [b, lk]: 1 where the key is seen, else 0; empty if there is no mask.
    flags: Vec<f32>,
    /// [b, blocks]: how many keys of the block are seen.
    counts: Vec<usize>,
    lk: usize,
}

impl Seen {
    pub(super) fn new(mask: Option<&[bool]>, dims: &Dims) -> Result<Self> {
        let lk = dims.lk;
        let mask = mask.filter(|_| lk > 0).unwrap_or(&[]);
        let count = |block: &[bool]| block.iter().filter(|&&seen| seen).count();
        let mut flags = reserved(OP, mask.len())?;
        flags.extend(mask.iter().map(|&seen| f32::from(u8::from(seen))));
        Ok(Self {
            flags,
            counts: mask
                .chunks(lk.max(1))
                .flat_map(|row| row.chunks(KEYS).map(count))
                .collect(),
            lk,
        })
    }

    fn count(&self, batch: usize, first: usize) -> Option<usize> {
        let at = batch * self.lk.div_ceil(KEYS) + first / KEYS;
        self.counts.get(at).copied()
    }

    /// Whether no key of the block from `first` on is seen.
    pub(super) fn none(&self, batch: usize, first: usize) -> bool {
        self.count(batch, first) == Some(0)
    }

    /// Whether every key of it is.
    pub(super) fn all(&self, batch: usize, first: usize) -> bool {
        self.count(batch, first)
            .is_none_or(|n| n == KEYS.min(self.lk - first))
    }

    /// The flags from a key on; null if there is no mask.
    pub(super) fn keys(&self, batch: usize, first: usize) -> *const f32 {
        match self.flags.get(batch * self.lk + first..) {
            Some(flags) if !flags.is_empty() => flags.as_ptr(),
            _ => std::ptr::null(),
        }
    }
}
