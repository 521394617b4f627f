//! Loads and stores of single lanes.

use crate::exec::block::{Block, Touch};
use crate::exec::warp::lanes;
use crate::ir::{Address, Operand, Reg, Space};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, faulted};
use crate::report::{Finding, Step, at_lane, problem};
use crate::types::{Type, extended, truncated};

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
    debug_assert!(
        size.is_power_of_two(),
        "sizes of accesses are powers of two"
    );
    if address & (size as u64 - 1) == 0 {
        return Ok(());
    }
    problem(
        Finding::Misaligned,
        format!("a {verb} of {size} bytes at {address:#x}, which is no multiple of {size}"),
    )
}

/// The first bytes as a number.
fn value_of(bytes: &[u8], size: usize) -> u128 {
    fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
        *bytes.first_chunk().expect("bytes of the size that is read")
    }
    match size {
        1 => bytes[0].into(),
        2 => u16::from_le_bytes(first(bytes)).into(),
        4 => u32::from_le_bytes(first(bytes)).into(),
        8 => u64::from_le_bytes(first(bytes)).into(),
        _ => u128::from_le_bytes(first(bytes)),
    }
}

/// Writes the low bytes of a value.
fn put_value(to: &mut [u8], value: u64, size: usize) {
    match size {
        4 => to[..4].copy_from_slice(&(value as u32).to_le_bytes()),
        8 => to[..8].copy_from_slice(&value.to_le_bytes()),
        _ => to[..size].copy_from_slice(&value.to_le_bytes()[..size]),
    }
}

/// A lane before this one that reads the same, if one is known.
fn same_as(lane: usize, apart: usize, addresses: &[u64; 32]) -> Option<usize> {
    if lane >= apart {
        return Some(lane - apart);
    }
    (lane > 0 && addresses[lane] == addresses[lane - 1]).then(|| lane - 1)
}

/// Each bit whose number is a multiple of `apart`.
fn every(apart: usize) -> u32 {
    (0..32).step_by(apart).fold(0, |mask, bit| mask | 1 << bit)
}

/// Whether all lanes access memory and their bytes, aligned, lie one after another.
fn in_a_row(mask: u32, addresses: &[u64; 32], size: usize) -> bool {
    let follows = |i: usize| addresses[i] == addresses[0].wrapping_add((i * size) as u64);
    mask == u32::MAX && addresses[0] & (size as u64 - 1) == 0 && (1..32).all(follows)
}

impl Block<'_> {
    pub(super) fn load(
        &mut self,
        w: usize,
        mask: u32,
        (space, ty, volatile): (Space, Type, bool),
        (dst, filled): (&[Option<Reg>], usize),
        from: Address,
    ) -> Step<()> {
        let addresses = self.addresses(w, from);
        let size = ty.size();
        let total = size * dst.len();
        let row = if space == Space::Global {
            self.load_row(mask, &addresses, total)
        } else {
            None
        };
        let together = row.is_none() && !volatile && matches!(space, Space::Global | Space::Shared);
        let apart = if together {
            self.touch_together(w, mask, space, &addresses, total)
        } else {
            None
        };
        for lane in lanes(mask) {
            let same = apart.and_then(|apart| same_as(lane, apart, &addresses));
            if let Some(other) = same {
                for reg in dst.iter().flatten() {
                    let register = &mut self.warps[w].registers[*reg as usize];
                    register[lane] = register[other];
                }
                continue;
            }
            let (space, address) = resolved(space, addresses[lane]);
            let access = Lane {
                space,
                lane,
                address,
                size: total,
                volatile,
            };
            let bytes = match &row {
                Some(row) => {
                    at_lane(lane, self.touch(w, access, false))?;
                    value_of(&row[lane * total..], total)
                }
                None => at_lane(lane, self.load_bytes(w, access, apart.is_some()))?,
            };
            for (i, reg) in dst.iter().enumerate() {
                if let Some(reg) = reg {
                    let value = truncated((bytes >> (8 * size * i)) as u64, size);
                    self.warps[w].registers[*reg as usize][lane] = extended(ty, value, filled);
                }
            }
        }
        Ok(())
    }

    /// Checks the reads of lanes for races, those of the same bytes at once. If one races, whether they can be read at all
    /// comes first: the result is `None`, and single accesses find the lane. Else it is the least number for which all lanes
    /// so far apart read the same, or 32.
    fn touch_together(
        &mut self,
        w: usize,
        mask: u32,
        space: Space,
        addresses: &[u64; 32],
        size: usize,
    ) -> Option<usize> {
        let first = w * 32;
        if mask != u32::MAX || !self.context.options.races || !self.clocks.agree(first, 32) {
            return None;
        }
        // Lanes that read the same: those with the same number modulo `apart`, or neighbours.
        let repeats = |apart: &usize| (*apart..32).all(|i| addresses[i] == addresses[i - apart]);
        let apart = [1, 2, 4, 8, 16].into_iter().find(repeats).unwrap_or(32);
        let mut lane = 0;
        while lane < apart {
            let (others, next) = if apart < 32 {
                (every(apart) & !1, lane + 1)
            } else {
                let run = addresses[lane..].iter();
                let run = run.take_while(|a| **a == addresses[lane]).count();
                (((1u64 << run) - 1) as u32 & !1, lane + run)
            };
            let touch = Touch {
                others,
                ..self.by_thread(first + lane, addresses[lane], size, false)
            };
            let checked = if space == Space::Shared {
                self.touch_shared(&touch)
            } else {
                self.touch_global(&touch)
            };
            checked.ok()?;
            lane = next;
        }
        Some(apart)
    }

    /// The bytes of all lanes, if they lie one after another in global memory: one access for a warp. If that fails, single
    /// accesses find the lane.
    fn load_row(&mut self, mask: u32, addresses: &[u64; 32], size: usize) -> Option<[u8; 512]> {
        let mut row = [0; 512];
        if !in_a_row(mask, addresses, size) {
            return None;
        }
        let bytes = &mut row[..32 * size];
        self.memory.read(addresses[0], bytes).ok()?;
        Some(row)
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
        let (size, mut bytes) = (ty.size(), [0; 512]);
        let total = size * src.len();
        for (i, operand) in src.iter().enumerate() {
            self.with(w, [*operand], |[values]| {
                for (lane, value) in values.iter().enumerate() {
                    put_value(&mut bytes[lane * total + i * size..], *value, size);
                }
            });
        }
        let row = space == Space::Global
            && in_a_row(mask, &addresses, total)
            && self
                .memory
                .write(addresses[0], &bytes[..32 * total])
                .is_ok();
        for lane in lanes(mask) {
            let (space, address) = resolved(space, addresses[lane]);
            let access = Lane {
                space,
                lane,
                address,
                size: total,
                volatile,
            };
            let stored = if row {
                self.touch(w, access, true)
            } else {
                self.store_bytes(w, access, &bytes[lane * total..][..total])
            };
            at_lane(lane, stored)?;
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

    /// `noted` says that the check for races was made.
    fn load_bytes(&mut self, w: usize, access: Lane, noted: bool) -> Step<u128> {
        let (address, size) = (access.address, access.size);
        check_aligned(address, size, "read")?;
        let mut out = [0; 16];
        match access.space {
            Space::Shared => {
                let value = value_of(self.shared.read(address, size)?, size);
                if !noted {
                    self.touch(w, access, false)?;
                }
                return Ok(value);
            }
            Space::Global | Space::Generic => {
                faulted(self.memory.read(address, &mut out[..size]))?;
                if !noted {
                    self.touch(w, access, false)?;
                }
            }
            Space::Const => faulted(self.memory.read(address, &mut out[..size]))?,
            Space::Param => self.load_param(address, &mut out[..size])?,
            Space::Local => {
                let at = self.local_place(address, size, access.lane, "read")?;
                let warp = &self.warps[w];
                if warp.local_written[at..at + size].contains(&false) {
                    let message = format!(
                        "a read of {size} bytes at {address:#x} of local memory, which nobody wrote"
                    );
                    return problem(Finding::NeverWritten, message);
                }
                return Ok(value_of(&warp.local[at..], size));
            }
        }
        Ok(value_of(&out, size))
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
