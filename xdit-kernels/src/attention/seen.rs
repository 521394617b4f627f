//! The key mask.

use super::{
    dims::{Dims, OP},
    tile::KEYS,
};
use crate::{Result, View, vector::reserved};

/// The key mask as the kernel reads it.
pub(super) struct Seen {
    /// [b, lk]: 1 where the key is seen, else 0; empty if there is no mask.
    flags: Vec<f32>,
    /// [b, blocks]: how many keys of the block are seen.
    counts: Vec<usize>,
    lk: usize,
}

impl Seen {
    /// `mask` is [b, lk] of u8, checked by the caller.
    pub(super) fn new(mask: Option<View<'_>>, dims: &Dims) -> Result<Self> {
        let lk = dims.lk;
        let mut flags: Vec<f32> = Vec::new();
        if let Some(mask) = mask.filter(|mask| mask.numel() > 0) {
            flags = reserved(OP, mask.numel())?;
            let (first, steps) = (mask.ptr(), mask.strides());
            let places = (0..dims.b).flat_map(|b| (0..lk).map(move |key| (b, key)));
            flags.extend(places.map(|(b, key)| {
                // SAFETY: the view reaches every index of its shape.
                let byte = unsafe { first.add(b * steps[0] + key * steps[1]).read() };
                f32::from(u8::from(byte != 0))
            }));
        }
        let count = |block: &[f32]| block.iter().filter(|&&seen| seen != 0.0).count();
        let counts = flags
            .chunks(lk.max(1))
            .flat_map(|row| row.chunks(KEYS).map(count))
            .collect();
        Ok(Self { flags, counts, lk })
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
