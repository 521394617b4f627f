//! Device memory by address.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::codes::{self, Code};
use crate::contents::Contents;

/// A device owns the addresses `FIRST + (device << SHIFT)` and up. Addresses are not used twice, so a stale pointer does not
/// point into a younger allocation.
const FIRST: u64 = 0x7000_0000_0000;
const SHIFT: u32 = 40;
/// Bytes behind each allocation that belong to none.
const GAP: u64 = 512;

/// An allocation.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) base: u64,
    pub(crate) size: usize,
    pub(crate) device: usize,
    /// The index of its record in the state.
    pub(crate) id: usize,
    /// `None` when it has been freed.
    pub(crate) contents: Option<Arc<Contents>>,
}

impl Slot {
    /// Names a byte.
    pub(crate) fn place(&self, offset: usize) -> String {
        format!(
            "{:#x} (byte {offset} of allocation #{} of {} bytes on device {})",
            self.base + offset as u64,
            self.id,
            self.size,
            self.device
        )
    }
}

/// Why bytes cannot be used.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Nowhere(u64, usize),
    OutOfBounds(u64, usize, Slot),
    Freed(u64, Slot),
    Unwritten(String),
}

impl Fault {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Unwritten(_) => codes::UNKNOWN,
            _ => codes::ILLEGAL_ADDRESS,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(address, len) => {
                write!(f, "{len} bytes at {address:#x} lie in no allocation")
            }
            Self::OutOfBounds(address, len, slot) => {
                let (base, size) = (slot.base, slot.size);
                let end = address + *len as u64 - base;
                write!(
                    f,
                    "out of bounds: {len} bytes at {address:#x} end at byte {end} of allocation #{} at {base:#x}, which has {size} bytes",
                    slot.id
                )
            }
            Self::Freed(address, slot) => write!(
                f,
                "use after free: {}",
                slot.place((address - slot.base) as usize)
            ),
            Self::Unwritten(place) => write!(f, "read of never-written device memory: {place}"),
        }
    }
}

/// All allocations by their addresses. Freed ones stay, without contents.
#[derive(Debug)]
pub(crate) struct Heap {
    slots: RwLock<BTreeMap<u64, Slot>>,
    next: Mutex<Vec<u64>>,
}

impl Heap {
    pub(crate) fn new(devices: usize) -> Self {
        let next = (0..devices as u64).map(|device| FIRST + (device << SHIFT));
        Self {
            slots: RwLock::default(),
            next: Mutex::new(next.collect()),
        }
    }

    /// Allocates bytes on a device.
    pub(crate) fn allocate(&self, device: usize, size: usize, id: usize) -> u64 {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let base = next[device];
        next[device] += (size as u64).next_multiple_of(256) + GAP;
        let slot = Slot {
            base,
            size,
            device,
            id,
            contents: Some(Arc::new(Contents::new(size))),
        };
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.insert(base, slot);
        base
    }

    /// Drops the contents of the allocation that begins here.
    pub(crate) fn free(&self, base: u64) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(&base) {
            slot.contents = None;
        }
    }

    /// The last allocation that begins at or before an address.
    fn below(&self, address: u64) -> Option<Slot> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let found = slots.range(..=address).next_back();
        found.map(|(_, slot)| slot.clone())
    }

    /// The allocation, freed or not, that holds an address or ends there.
    pub(crate) fn find_or_end(&self, address: u64) -> Option<Slot> {
        self.below(address)
            .filter(|slot| address - slot.base <= slot.size as u64)
    }

    /// The allocation of a range, or why the range cannot be used.
    pub(crate) fn locate(&self, address: u64, len: usize) -> Result<(Slot, Arc<Contents>), Fault> {
        let near = |slot: &Slot| address - slot.base < slot.size as u64 + GAP;
        let Some(slot) = self.below(address).filter(near) else {
            return Err(Fault::Nowhere(address, len));
        };
        let Some(contents) = slot.contents.clone() else {
            return Err(Fault::Freed(address, slot));
        };
        if address - slot.base + len as u64 > slot.size as u64 {
            return Err(Fault::OutOfBounds(address, len, slot));
        }
        Ok((slot, contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_frees() {
        let heap = Heap::new(2);
        let (a, b) = (heap.allocate(0, 100, 0), heap.allocate(1, 8, 1));
        assert!(heap.locate(a, 100).is_ok() && heap.locate(b + 7, 1).is_ok());
        assert!(matches!(
            heap.locate(a, 101),
            Err(Fault::OutOfBounds(_, 101, _))
        ));
        assert!(matches!(
            heap.locate(a + 300, 1),
            Err(Fault::OutOfBounds(..))
        ));
        assert!(matches!(heap.locate(a - 1, 1), Err(Fault::Nowhere(..))));
        assert!(matches!(heap.locate(a + 4096, 1), Err(Fault::Nowhere(..))));
        heap.free(a);
        assert!(matches!(heap.locate(a, 1), Err(Fault::Freed(..))));
        assert_eq!(heap.find_or_end(b + 8).map(|slot| slot.id), Some(1));
        assert!(heap.find_or_end(b + 9).is_none());
    }
}
