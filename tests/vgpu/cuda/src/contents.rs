//! The bytes of an allocation.
//!
//! Kernels of several threads may use the same allocation at the same time, and a program with a race lets them: each byte
//! is an atomic, so that the double itself has no undefined behaviour.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Set in the cell of a byte that was written.
const WRITTEN: u16 = 0x100;
/// What a byte reads as that was not written.
const NEVER: u8 = 0xcd;

/// The bytes of an allocation, and which of them were written.
#[derive(Debug)]
pub(crate) struct Contents(Box<[AtomicU16]>);

impl Contents {
    /// Bytes that were not written. Zeros of the system: pages that a program does not use cost nothing.
    pub(crate) fn new(size: usize) -> Self {
        let zeros = Box::into_raw(vec![0_u16; size].into_boxed_slice());
        // SAFETY: `AtomicU16` has the size, alignment and bit validity of `u16`, and nobody else has this box.
        Self(unsafe { Box::from_raw(zeros as *mut [AtomicU16]) })
    }

    /// Reads bytes; whether all of them were written.
    pub(crate) fn read(&self, start: usize, out: &mut [u8]) -> bool {
        let cells = &self.0[start..start + out.len()];
        let mut written = WRITTEN;
        for (byte, cell) in out.iter_mut().zip(cells) {
            let value = cell.load(Relaxed);
            written &= value;
            *byte = value as u8 ^ NEVER;
        }
        written != 0
    }

    pub(crate) fn write(&self, start: usize, bytes: &[u8]) {
        for (cell, byte) in self.0[start..start + bytes.len()].iter().zip(bytes) {
            cell.store(u16::from(byte ^ NEVER) | WRITTEN, Relaxed);
        }
    }

    /// Writes one value to all of some bytes.
    pub(crate) fn fill(&self, start: usize, len: usize, value: u8) {
        self.set(start, len, u16::from(value ^ NEVER) | WRITTEN);
    }

    /// The cells of some bytes, which `paste` stores elsewhere: bytes that were not written stay so.
    pub(crate) fn cut(&self, start: usize, len: usize) -> Vec<u16> {
        let cells = &self.0[start..start + len];
        cells.iter().map(|cell| cell.load(Relaxed)).collect()
    }

    pub(crate) fn paste(&self, start: usize, cut: &[u16]) {
        for (cell, value) in self.0[start..start + cut.len()].iter().zip(cut) {
            cell.store(*value, Relaxed);
        }
    }

    /// Afterwards the bytes count as never written.
    pub(crate) fn forget(&self, start: usize, len: usize) {
        self.set(start, len, 0);
    }

    fn set(&self, start: usize, len: usize, value: u16) {
        for cell in &self.0[start..start + len] {
            cell.store(value, Relaxed);
        }
    }

    /// The first byte from `start` on that was not written.
    pub(crate) fn first_unwritten(&self, start: usize, len: usize) -> usize {
        let cells = &self.0[start..start + len];
        let found = cells.iter().position(|c| c.load(Relaxed) & WRITTEN == 0);
        start + found.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_bytes_are_known() {
        let (a, b) = (Contents::new(8), Contents::new(8));
        let mut out = [0; 3];
        assert!(!a.read(0, &mut out));
        assert_eq!(out, [NEVER; 3]);
        a.write(2, &[0, 1, 205]);
        assert!(a.read(2, &mut out));
        assert_eq!(out, [0, 1, 205]);
        b.paste(0, &a.cut(1, 4));
        assert!(b.read(1, &mut out) && !b.read(0, &mut out));
        assert_eq!(b.first_unwritten(0, 8), 0);
        assert_eq!(b.first_unwritten(1, 7), 4);
        b.forget(1, 1);
        assert!(!b.read(1, &mut out));
        b.fill(1, 2, 7);
        assert!(b.read(1, &mut out));
        assert_eq!(out, [7, 7, 205]);
    }
}
