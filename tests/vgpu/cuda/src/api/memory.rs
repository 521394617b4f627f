//! Allocation: of devices, in stream order or at once, and pinned memory of the host.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_uint;

use crate::api::calls::api;
use crate::api::current::{current_device, stream_index};
use crate::arguments::Out;
use crate::clock::OpRef;
use crate::codes::{self, Res};
use crate::engine::{Engine, engine};
use crate::records::{Life, Record};
use crate::state::State;
use crate::work::Work;

/// The alignment of pinned memory.
const PAGE: usize = 4096;

impl Engine {
    /// Allocates bytes on a device. Memory with `born` belongs to the operations behind that one.
    pub(crate) fn allocate(
        &self,
        state: &mut State,
        device: usize,
        size: usize,
        born: Option<OpRef>,
    ) -> u64 {
        let id = state.records.len();
        let base = self.heap.allocate(device, size, id);
        let record = Record::new(base, size, Some(device));
        state.records.push(Record { born, ..record });
        let live = state.live_bytes(device);
        let peak = &mut state.devices[device].peak;
        *peak = live.max(*peak);
        base
    }

    /// Frees an allocation in the order of a stream, or at once.
    pub(crate) fn free(&self, pointer: u64, stream: Option<usize>) -> Res {
        if pointer == 0 {
            return Ok(());
        }
        let slot = self.heap.find_or_end(pointer);
        let mut state = self.lock();
        let Some(slot) = slot.filter(|slot| slot.base == pointer) else {
            let text = format!("free of {pointer:#x}, where no allocation begins");
            return state.refuse(codes::INVALID_VALUE, text);
        };
        let id = slot.id;
        if !state.records[id].is_live() {
            let text = format!("double free: {}", state.records[id].place(id, 0));
            return state.refuse(codes::INVALID_VALUE, text);
        }
        state.records[id].life = Life::FreeQueued;
        if let Some(stream) = stream {
            drop(state);
            let label = format!("cuMemFreeAsync of allocation #{id}");
            return self.submit(stream, Work::Free(id), label).map(|_| ());
        }
        // A driver waits for the device before it frees memory of cuMemAlloc.
        if state.records[id].born.is_none() {
            drop(state);
            self.synchronize_device(slot.device)?;
            state = self.lock();
        }
        let frees = state.devices[slot.device].frees;
        let label = format!("cuMemFree of allocation #{id}");
        let operation = state.push(frees, Work::Free(id), label);
        drop(self.finish_operation(state, &operation));
        Ok(())
    }

    /// Ends the life of pinned memory that begins at an address.
    fn unpin(&self, address: u64) -> Res<usize> {
        let mut state = self.lock();
        let mut records = state.records.iter().enumerate();
        let found = records.find(|(_, record)| {
            record.device.is_none() && record.is_live() && record.base == address
        });
        let Some((id, size)) = found.map(|(id, record)| (id, record.size)) else {
            let text = format!("cuMemFreeHost of {address:#x}, where no pinned memory begins");
            return state.refuse(codes::INVALID_VALUE, text);
        };
        if let Some(user) = state.pinned_user(id, 0, size) {
            let place = state.records[id].place(id, 0);
            let text =
                format!("freed while in use: {place} by cuMemFreeHost, before {user} has run");
            state.report(codes::UNKNOWN, text);
            drop(state);
            state = self.finish_all();
        }
        state.records[id].life = Life::FreeQueued;
        state.records[id].history.clear();
        Ok(size)
    }
}

/// Whether a device has so many bytes left. A program may go on without them, so this is no finding.
fn room(state: &State, device: usize, size: usize) -> Res {
    if size > state.free_bytes(device) {
        Err(codes::OUT_OF_MEMORY)
    } else {
        Ok(())
    }
}

/// Allocates in the order of a stream.
pub(crate) fn allocate_async(pointer: &Out<u64>, size: usize, stream: u64) -> Res {
    let stream = stream_index(stream)?;
    let engine = engine()?;
    let mut state = engine.lock();
    if state.streams[stream].capture.is_some() {
        let text = "cuMemAllocAsync during a capture: the double does not know it".to_owned();
        return state.refuse(codes::NOT_SUPPORTED, text);
    }
    if size == 0 {
        return Err(codes::INVALID_VALUE);
    }
    let device = state.streams[stream].device;
    room(&state, device, size)?;
    let label = format!("cuMemAllocAsync of allocation #{}", state.records.len());
    let born = state.enqueue(stream, Work::Nothing, label)?;
    pointer.set(engine.allocate(&mut state, device, size, born))?;
    engine.run_some(state);
    Ok(())
}

api! {
    fn cuMemAlloc_v2(pointer: Out<u64>, size: usize) {
        let device = current_device()?;
        if size == 0 {
            return Err(codes::INVALID_VALUE);
        }
        let engine = engine()?;
        let mut state = engine.lock();
        room(&state, device, size)?;
        pointer.set(engine.allocate(&mut state, device, size, None))
    }

    fn cuMemAllocAsync(pointer: Out<u64>, size: usize, stream: u64) {
        allocate_async(&pointer, size, stream)
    }

    fn cuMemFree_v2(pointer: u64) {
        current_device()?;
        engine()?.free(pointer, None)
    }

    fn cuMemFreeAsync(pointer: u64, stream: u64) {
        engine()?.free(pointer, Some(stream_index(stream)?))
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let device = current_device()?;
        let state = engine()?.lock();
        free.set_if_wanted(state.free_bytes(device));
        total.set_if_wanted(state.config.memory_bytes);
        Ok(())
    }

    fn cuMemHostAlloc(pointer: Out<u64>, size: usize, _flags: c_uint) {
        current_device()?;
        let layout = Layout::from_size_align(size.max(1), PAGE);
        let layout = layout.map_err(|_| codes::OUT_OF_MEMORY)?;
        // SAFETY: the layout has a size of at least 1.
        let address = unsafe { alloc_zeroed(layout) } as u64;
        if address == 0 {
            return Err(codes::OUT_OF_MEMORY);
        }
        let record = Record::new(address, size.max(1), None);
        engine()?.lock().records.push(record);
        pointer.set(address)
    }

    fn cuMemFreeHost(pointer: u64) {
        let size = engine()?.unpin(pointer)?;
        let layout = Layout::from_size_align(size, PAGE).map_err(|_| codes::INVALID_VALUE)?;
        // SAFETY: `allocate_host` allocated this memory with this layout, and its record was live until now.
        unsafe { dealloc(pointer as *mut u8, layout) };
        Ok(())
    }
}
