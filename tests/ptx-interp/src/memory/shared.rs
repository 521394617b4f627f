//! Shared memory of a block: its bytes, and which of them were written.

use crate::report::{Finding, Step, problem};

/// Bytes of one block, all of them unwritten at first.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    bytes: Vec<u8>,
    written: Vec<bool>,
    /// Words of eight bytes that hold an mbarrier.
    mbarriers: Vec<bool>,
    any_mbarrier: bool,
}

impl SharedMemory {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            bytes: vec![0xcd; size],
            written: vec![false; size],
            mbarriers: vec![false; size.div_ceil(8)],
            any_mbarrier: false,
        }
    }

    /// The offset of an access, if its bytes exist and no mbarrier lies there.
    fn place(&self, address: u64, size: usize, verb: &str) -> Step<usize> {
        let end = address.checked_add(size as u64);
        if end.is_none_or(|end| end > self.bytes.len() as u64) {
            let have = self.bytes.len();
            let message = format!(
                "a {verb} of {size} bytes at {address:#x} of shared memory, which has {have:#x}"
            );
            return problem(Finding::OutOfBounds, message);
        }
        let at = address as usize;
        if self.any_mbarrier && self.mbarriers[at / 8..(at + size).div_ceil(8)].contains(&true) {
            let message = format!(
                "a {verb} of {size} bytes at {address:#x} of shared memory, where an mbarrier lies"
            );
            return problem(Finding::Mbarrier, message);
        }
        Ok(at)
    }

    /// Checks that an access is possible, without making it.
    pub(crate) fn check(&self, address: u64, size: usize, verb: &str) -> Step<()> {
        self.place(address, size, verb).map(|_| ())
    }

    pub(crate) fn read(&self, address: u64, size: usize) -> Step<&[u8]> {
        let at = self.place(address, size, "read")?;
        if let Some(first) = self.written[at..at + size].iter().position(|w| !w) {
            let message = format!(
                "a read of {size} bytes at {address:#x} of shared memory; nobody has written byte {:#x}",
                at + first
            );
            return problem(Finding::NeverWritten, message);
        }
        Ok(&self.bytes[at..at + size])
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> Step<()> {
        let at = self.place(address, bytes.len(), "write")?;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.written[at..at + bytes.len()].fill(true);
        Ok(())
    }

    /// Marks the eight bytes of an mbarrier, or frees them; they are unwritten then.
    pub(crate) fn mark_mbarrier(&mut self, address: u64, present: bool) -> Step<()> {
        if address
            .checked_add(8)
            .is_none_or(|end| end > self.bytes.len() as u64)
        {
            return problem(
                Finding::OutOfBounds,
                format!("an mbarrier at {address:#x} is outside of shared memory"),
            );
        }
        let at = address as usize;
        self.mbarriers[at / 8] = present;
        self.written[at..at + 8].fill(false);
        self.any_mbarrier = self.mbarriers.contains(&true);
        Ok(())
    }
}
