//! A global memory for tests: allocations with unused space between them.

use crate::memory::device::{DeviceMemory, MemoryFault};
use crate::module::Module;
use crate::report::Finding;

const FIRST: u64 = 0x7000_0000_0000;
const GAP: u64 = 4096;

#[derive(Clone, Debug)]
struct Allocation {
    address: u64,
    bytes: Vec<u8>,
    written: Vec<bool>,
}

/// Global memory that knows its allocations and which of their bytes were written.
#[derive(Clone, Debug, Default)]
pub struct FlatMemory {
    allocations: Vec<Allocation>,
    recent: usize,
}

impl FlatMemory {
    /// A memory without allocations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates bytes that nobody has written, at a multiple of 256.
    pub fn allocate(&mut self, size: usize) -> u64 {
        let end = self
            .allocations
            .last()
            .map_or(FIRST, |a| a.address + a.bytes.len() as u64 + GAP);
        let address = end.next_multiple_of(256);
        self.allocations.push(Allocation {
            address,
            bytes: vec![0xcd; size],
            written: vec![false; size],
        });
        address
    }

    /// Allocates these bytes.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let address = self.allocate(bytes.len());
        if let Some(last) = self.allocations.last_mut() {
            last.bytes.copy_from_slice(bytes);
            last.written.fill(true);
        }
        address
    }

    /// Allocates f32 numbers.
    pub fn put_f32(&mut self, values: &[f32]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.put(&bytes)
    }

    /// Allocates the variables of a module. The result is for `Launch::variables`.
    pub fn put_variables(&mut self, module: &Module) -> Vec<u64> {
        module
            .variables()
            .iter()
            .map(|variable| self.put(&variable.initial))
            .collect()
    }

    /// The bytes of an allocation from an address on.
    ///
    /// # Errors
    /// As `DeviceMemory::read`.
    pub fn bytes(&mut self, address: u64, size: usize) -> Result<Vec<u8>, MemoryFault> {
        let mut out = vec![0; size];
        self.read(address, &mut out)?;
        Ok(out)
    }

    /// The f32 numbers from an address on.
    ///
    /// # Errors
    /// As `DeviceMemory::read`.
    pub fn f32s(&mut self, address: u64, count: usize) -> Result<Vec<f32>, MemoryFault> {
        let bytes = self.bytes(address, count * 4)?;
        let (values, _) = bytes.as_chunks();
        Ok(values.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// The allocation that holds a range, and the range within it.
    fn find(
        &mut self,
        address: u64,
        size: usize,
        verb: &str,
    ) -> Result<(&mut Allocation, usize), MemoryFault> {
        let holds = |a: &Allocation| {
            address >= a.address && address - a.address < a.bytes.len().max(1) as u64
        };
        if !self.allocations.get(self.recent).is_some_and(holds) {
            match self.allocations.iter().position(holds) {
                Some(found) => self.recent = found,
                None => return Err(outside(address, size, verb, "is in no allocation")),
            }
        }
        let allocation = &mut self.allocations[self.recent];
        let at = (address - allocation.address) as usize;
        if size > allocation.bytes.len() - at {
            let end = format!(
                "ends behind an allocation of {} bytes at {:#x}",
                allocation.bytes.len(),
                allocation.address
            );
            return Err(outside(address, size, verb, &end));
        }
        Ok((allocation, at))
    }
}

fn outside(address: u64, size: usize, verb: &str, what: &str) -> MemoryFault {
    let message = format!("a {verb} of {size} bytes of global memory at {address:#x} {what}");
    MemoryFault {
        finding: Finding::OutOfBounds,
        message,
    }
}

impl DeviceMemory for FlatMemory {
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), MemoryFault> {
        let size = out.len();
        let (allocation, at) = self.find(address, size, "read")?;
        if allocation.written[at..at + size].contains(&false) {
            let message = format!(
                "a read of {size} bytes of global memory at {address:#x}, which nobody wrote"
            );
            return Err(MemoryFault {
                finding: Finding::NeverWritten,
                message,
            });
        }
        out.copy_from_slice(&allocation.bytes[at..at + size]);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let (allocation, at) = self.find(address, bytes.len(), "write")?;
        allocation.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        allocation.written[at..at + bytes.len()].fill(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_written_bytes() {
        let mut memory = FlatMemory::new();
        let (a, b) = (memory.allocate(8), memory.put_f32(&[1.0]));
        memory.write(a, &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory.bytes(a, 4).unwrap(), [1, 2, 3, 4]);
        assert_eq!(
            memory.bytes(a, 5).unwrap_err().finding,
            Finding::NeverWritten
        );
        assert_eq!(
            memory.write(a + 5, &[0; 4]).unwrap_err().finding,
            Finding::OutOfBounds
        );
        assert_eq!(
            memory.bytes(a - 1, 1).unwrap_err().finding,
            Finding::OutOfBounds
        );
        assert_eq!(
            memory.bytes(a + 8, 1).unwrap_err().finding,
            Finding::OutOfBounds
        );
        assert_eq!(memory.f32s(b, 1).unwrap(), [1.0]);
    }
}
