//! Loads and stores of single lanes.

use crate::exec::block::{Block, Touch};
use crate::exec::warp::lanes;
use crate::ir::{Address, Operand, Reg, Space};
use crate::memory::{DeviceMemory, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, faulted};
use crate::report::{Finding, Step, at_lane, problem};
use crate::types::{Type, extended};

/// The space of a generic address, and the address within it.
pub(super) fn resolved(space: Space, address: u64) -> (Space, u64) {
    if space != Space::Generic {
        return (space, address);
    }
    let low = address & 0xffff_ffff;
    match address - low {
        SHARED_WINDOW => (Space::Shared, low),
        LOCAL_WINDOW => (Space::Local, low),
        PARAM_WINDOW => (Space::Param, low),
        _ => (Space::Global, address),
    }
}

/// An address of shared memory, given as one or as a generic address.
pub(super) fn in_shared(address: u64) -> u64 {
    address.checked_sub(SHARED_WINDOW).unwrap_or(address)
}

/// A vector of values in memory: up to 16 bytes.
#[derive(Clone, Copy)]
struct Lane {
    space: Space,
    lane: usize,
    address: u64,
    size: usize,
    volatile: bool,
}

pub(super) fn check_aligned(address: u64, size: usize, verb: &str) -> Step<()> {
    if address.is_multiple_of(size as u64) {
        return Ok(());
    }
    problem(
        Finding::Misaligned,
        format!("a {verb} of {size} bytes at {address:#x}, which is no multiple of {size}"),
    )
}

impl<M: DeviceMemory + ?Sized> Block<'_, M> {
    pub(super) fn load(
        &mut self,
        w: usize,
        mask: u32,
        (space, ty, volatile): (Space, Type, bool),
        (dst, filled): (&[Option<Reg>], usize),
        from: Address,
    ) -> Step<()> {
        let addresses = self.addresses(w, from);
        let (size, mut bytes) = (ty.size(), [0; 16]);
        for lane in lanes(mask) {
            let (space, address) = resolved(space, addresses[lane]);
            let access = Lane {
                space,
                lane,
                address,
                size: size * dst.len(),
                volatile,
            };
            at_lane(
                lane,
                self.load_bytes(w, access, &mut bytes[..size * dst.len()]),
            )?;
            for (i, reg) in dst.iter().enumerate() {
                let mut value = [0; 8];
                value[..size].copy_from_slice(&bytes[i * size..][..size]);
                let value = extended(ty, u64::from_le_bytes(value), filled);
                if let Some(reg) = reg {
                    self.warps[w].registers[*reg as usize][lane] = value;
                }
            }
        }
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        w: usize,
        mask: u32,
        (space, ty, volatile): (Space, Type, bool),
        src: &[Operand],
        to: Address,
    ) -> Step<()> {
        let addresses = self.addresses(w, to);
        let mut values = [[0; 32]; 4];
        for (value, operand) in values.iter_mut().zip(src) {
            *value = self.fetch(w, *operand);
        }
        let (size, mut bytes) = (ty.size(), [0; 16]);
        for lane in lanes(mask) {
            for (i, value) in values[..src.len()].iter().enumerate() {
                bytes[i * size..][..size].copy_from_slice(&value[lane].to_le_bytes()[..size]);
            }
            let (space, address) = resolved(space, addresses[lane]);
            let access = Lane {
                space,
                lane,
                address,
                size: size * src.len(),
                volatile,
            };
            at_lane(
                lane,
                self.store_bytes(w, access, &bytes[..size * src.len()]),
            )?;
        }
        self.changes += 1;
        Ok(())
    }

    /// Checks an access to shared or global memory for races.
    fn touch(&mut self, w: usize, access: Lane, writes: bool) -> Step<()> {
        let thread = w * 32 + access.lane;
        let touch = Touch {
            atomic: access.volatile,
            ..self.by_thread(thread, access.address, access.size, writes)
        };
        if access.space == Space::Shared {
            self.touch_shared(&touch)
        } else {
            self.touch_global(&touch)
        }
    }

    fn load_bytes(&mut self, w: usize, access: Lane, out: &mut [u8]) -> Step<()> {
        let (address, size) = (access.address, access.size);
        check_aligned(address, size, "read")?;
        match access.space {
            Space::Shared => {
                out.copy_from_slice(self.shared.read(address, size)?);
                self.touch(w, access, false)
            }
            Space::Global | Space::Generic => {
                faulted(self.memory.read(address, out))?;
                self.touch(w, access, false)
            }
            Space::Const => faulted(self.memory.read(address, out)),
            Space::Param => self.load_param(address, out),
            Space::Local => {
                let at = self.local_place(address, size, access.lane, "read")?;
                let warp = &self.warps[w];
                if warp.local_written[at..at + size].contains(&false) {
                    let message = format!(
                        "a read of {size} bytes at {address:#x} of local memory, which nobody wrote"
                    );
                    return problem(Finding::NeverWritten, message);
                }
                out.copy_from_slice(&warp.local[at..at + size]);
                Ok(())
            }
        }
    }

    fn store_bytes(&mut self, w: usize, access: Lane, bytes: &[u8]) -> Step<()> {
        let (address, size) = (access.address, access.size);
        check_aligned(address, size, "write")?;
        match access.space {
            Space::Shared => {
                self.shared.write(address, bytes)?;
                self.touch(w, access, true)
            }
            Space::Global | Space::Generic => {
                faulted(self.memory.write(address, bytes))?;
                self.touch(w, access, true)
            }
            Space::Local => {
                let at = self.local_place(address, size, access.lane, "write")?;
                let warp = &mut self.warps[w];
                warp.local[at..at + size].copy_from_slice(bytes);
                warp.local_written[at..at + size].fill(true);
                Ok(())
            }
            Space::Param | Space::Const => problem(
                Finding::OutOfBounds,
                format!("a write to the parameters at {address:#x}, which are constant"),
            ),
        }
    }

    fn load_param(&self, address: u64, out: &mut [u8]) -> Step<()> {
        let params = self.context.params;
        let at = usize::try_from(address).ok();
        match at.and_then(|at| params.get(at..at.checked_add(out.len())?)) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => {
                let (size, have) = (out.len(), params.len());
                problem(
                    Finding::OutOfBounds,
                    format!("a read of {size} bytes at {address} of {have} bytes of parameters"),
                )
            }
        }
    }

    fn local_place(&self, address: u64, size: usize, lane: usize, verb: &str) -> Step<usize> {
        let have = self.context.entry.local;
        if address
            .checked_add(size as u64)
            .is_none_or(|end| end > have as u64)
        {
            let message = format!(
                "a {verb} of {size} bytes at {address:#x} of local memory, which has {have} bytes"
            );
            return problem(Finding::OutOfBounds, message);
        }
        Ok(lane * have + address as usize)
    }

    /// Reads bytes that one thread names by a generic address, without a check for races: descriptors.
    pub(super) fn load_generic(&mut self, address: u64, out: &mut [u8]) -> Step<()> {
        match resolved(Space::Generic, address) {
            (Space::Param, at) => self.load_param(at, out),
            (Space::Global, at) => faulted(self.memory.read(at, out)),
            _ => problem(
                Finding::Operand,
                format!(
                    "the descriptor at {address:#x} is neither in global memory nor a parameter"
                ),
            ),
        }
    }
}
