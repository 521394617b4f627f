//! The accesses of one operation to device memory: bounds are checked, and which bytes were read and written is noted.

use std::sync::Arc;

use ptx_interp::{DeviceMemory, Finding, MemoryFault};

use crate::contents::Contents;
use crate::heap::{Fault, Heap, Slot};
use crate::ranges::{Marks, Ranges};
use crate::work::Rect;

/// What an operation did with an allocation.
#[derive(Debug)]
pub(crate) struct Access {
    /// The index of its record.
    pub(crate) id: usize,
    pub(crate) device: usize,
    pub(crate) read: Ranges,
    pub(crate) written: Ranges,
}

#[derive(Debug)]
struct Touched {
    slot: Slot,
    contents: Arc<Contents>,
    read: Marks,
    written: Marks,
}

/// Device memory as one operation sees it.
#[derive(Debug)]
pub(crate) struct Recorder<'h> {
    heap: &'h Heap,
    touched: Vec<Touched>,
    recent: usize,
    /// What a kernel's access failed with: the report of the interpreter does not hold it.
    pub(crate) fault: Option<Fault>,
}

impl<'h> Recorder<'h> {
    pub(crate) fn new(heap: &'h Heap) -> Self {
        Self {
            heap,
            touched: Vec::new(),
            recent: 0,
            fault: None,
        }
    }

    /// Forgets the accesses so far, before a kernel runs another time.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.heap);
    }

    /// The allocation of some bytes and where they begin in it.
    fn at(&mut self, address: u64, len: usize) -> Result<(&mut Touched, usize), Fault> {
        let holds = |touched: &Touched| {
            let slot = &touched.slot;
            address >= slot.base && address - slot.base + len as u64 <= slot.size as u64
        };
        if !self.touched.get(self.recent).is_some_and(holds) {
            self.recent = match self.touched.iter().position(holds) {
                Some(found) => found,
                None => {
                    let (slot, contents) = self.heap.locate(address, len)?;
                    self.touched.push(Touched {
                        slot,
                        contents,
                        read: Marks::default(),
                        written: Marks::default(),
                    });
                    self.touched.len() - 1
                }
            };
        }
        let touched = &mut self.touched[self.recent];
        let start = (address - touched.slot.base) as usize;
        Ok((touched, start))
    }

    /// Reads bytes that must have been written.
    pub(crate) fn load(&mut self, address: u64, out: &mut [u8]) -> Result<(), Fault> {
        let len = out.len();
        let (touched, start) = self.at(address, len)?;
        touched.read.set(start, len);
        if touched.contents.read(start, out) {
            return Ok(());
        }
        let first = touched.contents.first_unwritten(start, len);
        Err(Fault::Unwritten(touched.slot.place(first)))
    }

    /// Where bytes are stored that an operation writes.
    fn written(&mut self, address: u64, len: usize) -> Result<(&Contents, usize), Fault> {
        let (touched, start) = self.at(address, len)?;
        touched.written.set(start, len);
        Ok((&touched.contents, start))
    }

    pub(crate) fn store(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let (contents, start) = self.written(address, bytes.len())?;
        contents.write(start, bytes);
        Ok(())
    }

    /// The bytes of a rectangle, row after row.
    pub(crate) fn load_rect(&mut self, rect: &Rect) -> Result<Vec<u8>, Fault> {
        let mut out = vec![0; rect.bytes()];
        for (row, bytes) in rect.rows().zip(out.chunks_mut(rect.width.max(1))) {
            self.load(row, bytes)?;
        }
        Ok(out)
    }

    pub(crate) fn store_rect(&mut self, rect: &Rect, bytes: &[u8]) -> Result<(), Fault> {
        for (row, bytes) in rect.rows().zip(bytes.chunks(rect.width.max(1))) {
            self.store(row, bytes)?;
        }
        Ok(())
    }

    /// Writes one value to all bytes of a rectangle.
    pub(crate) fn fill(&mut self, rect: &Rect, value: u8) -> Result<(), Fault> {
        for row in rect.rows() {
            let (contents, start) = self.written(row, rect.width)?;
            contents.fill(start, rect.width, value);
        }
        Ok(())
    }

    /// Copies bytes; those that were not written stay so.
    pub(crate) fn copy(&mut self, to: &Rect, from: &Rect) -> Result<(), Fault> {
        for (to, row) in to.rows().zip(from.rows()) {
            let (source, start) = self.at(row, from.width)?;
            source.read.set(start, from.width);
            let cells = source.contents.cut(start, from.width);
            let (contents, start) = self.written(to, from.width)?;
            contents.paste(start, &cells);
        }
        Ok(())
    }

    /// A write of bytes that have no meaning, such as those of a workspace.
    pub(crate) fn scribble(&mut self, rect: &Rect) -> Result<(), Fault> {
        for row in rect.rows() {
            let (contents, start) = self.written(row, rect.width)?;
            contents.forget(start, rect.width);
        }
        Ok(())
    }

    /// What was done with each allocation.
    pub(crate) fn accesses(self) -> Vec<Access> {
        let touched = self.touched.into_iter();
        touched
            .map(|touched| Access {
                id: touched.slot.id,
                device: touched.slot.device,
                read: touched.read.ranges(),
                written: touched.written.ranges(),
            })
            .collect()
    }

    fn failed(&mut self, fault: Fault) -> MemoryFault {
        let finding = match fault {
            Fault::Unwritten(_) => Finding::NeverWritten,
            _ => Finding::OutOfBounds,
        };
        let message = fault.to_string();
        self.fault = Some(fault);
        MemoryFault { finding, message }
    }
}

impl DeviceMemory for Recorder<'_> {
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), MemoryFault> {
        self.load(address, out).map_err(|fault| self.failed(fault))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.store(address, bytes)
            .map_err(|fault| self.failed(fault))
    }
}
