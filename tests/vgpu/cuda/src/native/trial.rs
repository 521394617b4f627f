//! The loads and stores of a native version of a kernel. Stores are made when all threads have run and nothing was wrong.

use ptx_interp::DeviceMemory;

use super::call::KernelRows;
use super::floats::Float;

/// The elements that a thread loads at a time.
const MOST: usize = 8;

/// The accesses of one launch.
pub(super) struct Trial<'m> {
    memory: &'m mut dyn DeviceMemory,
    /// First byte and the one behind the last.
    reads: Vec<(u64, u64)>,
    stores: Vec<(u64, u64)>,
    /// What is stored, store after store.
    bytes: Vec<u8>,
}

/// Adds an access, to the last one where it goes on there.
fn note(accesses: &mut Vec<(u64, u64)>, start: u64, len: usize) -> Option<()> {
    let end = start.checked_add(len as u64)?;
    match accesses.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => accesses.push((start, end)),
    }
    Some(())
}

impl<'m> Trial<'m> {
    pub(super) fn new(memory: &'m mut dyn DeviceMemory) -> Self {
        Self {
            memory,
            reads: Vec::new(),
            stores: Vec::new(),
            bytes: Vec::new(),
        }
    }

    fn load(&mut self, at: u64, align: usize, out: &mut [u8]) -> Option<()> {
        if !at.is_multiple_of(align as u64) {
            return None;
        }
        self.memory.read(at, out).ok()?;
        note(&mut self.reads, at, out.len())
    }

    /// Bytes that `self.bytes` has from `first` on are stored at `at`.
    fn stored(&mut self, at: u64, align: usize, first: usize) -> Option<()> {
        if !at.is_multiple_of(align as u64) {
            return None;
        }
        note(&mut self.stores, at, self.bytes.len() - first)
    }

    /// Loads some elements, by 16 bytes where they are aligned.
    pub(super) fn floats(
        &mut self,
        float: Float,
        aligned: bool,
        count: usize,
        base: u64,
        index: u64,
    ) -> Option<[f32; MOST]> {
        let (size, mut bytes, mut out) = (float.size(), [0; 4 * MOST], [0.0; MOST]);
        let bytes = &mut bytes[..count * size];
        self.load(
            float.at(base, index),
            if aligned { 16 } else { size },
            bytes,
        )?;
        for (out, bytes) in out.iter_mut().zip(bytes.chunks(size)) {
            *out = float.widen(bytes);
        }
        Some(out)
    }

    /// Loads elements of an operand from one on; `absent` where it is.
    pub(super) fn operand(
        &mut self,
        operand: &KernelRows,
        data: Float,
        aligned: bool,
        count: usize,
        index: u64,
        absent: f32,
    ) -> Option<[f32; MOST]> {
        let float = match operand.kind {
            0 => return Some([absent; MOST]),
            1 => Float::F32,
            _ => data,
        };
        self.floats(float, aligned, count, operand.address, index)
    }

    pub(super) fn store_floats(
        &mut self,
        float: Float,
        aligned: bool,
        values: &[f32],
        base: u64,
        index: u64,
    ) -> Option<()> {
        let first = self.bytes.len();
        for value in values {
            float.narrow(*value, &mut self.bytes)?;
        }
        self.stored(
            float.at(base, index),
            if aligned { 16 } else { float.size() },
            first,
        )
    }

    /// Copies word number `from` behind `x` to word number `to` behind `out`; words have 1, 2, 4, 8 or 16 bytes.
    pub(super) fn move_word(
        &mut self,
        bytes: usize,
        x: u64,
        from: u64,
        out: u64,
        to: u64,
    ) -> Option<()> {
        let at = |first: u64, index: u64| first.wrapping_add(index.wrapping_mul(bytes as u64));
        let (from, to) = (at(x, from), at(out, to));
        if !matches!(bytes, 1 | 2 | 4 | 8 | 16) {
            return None;
        }
        let (mut word, first) = ([0; 16], self.bytes.len());
        self.load(from, bytes, &mut word[..bytes])?;
        self.bytes.extend_from_slice(&word[..bytes]);
        self.stored(to, bytes, first)
    }

    /// Makes the stores, if no byte is stored twice, or loaded and stored.
    pub(super) fn commit(self) -> Option<()> {
        let mut sorted = self.stores.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|two| two[1].0 < two[0].1) {
            return None;
        }
        for (start, end) in &self.reads {
            let next = sorted.partition_point(|store| store.1 <= *start);
            if sorted.get(next).is_some_and(|store| store.0 < *end) {
                return None;
            }
        }
        let mut bytes = &self.bytes[..];
        for (start, end) in &self.stores {
            let (these, rest) = bytes.split_at_checked((end - start) as usize)?;
            self.memory.write(*start, these).ok()?;
            bytes = rest;
        }
        Some(())
    }
}
