//! Memory spaces, their checks, and what orders accesses.

mod cells;
mod clocks;
mod device;
mod flat;
mod races;
mod shared;

pub(crate) use device::faulted;
pub use device::{DeviceMemory, MemoryFault};
pub use flat::FlatMemory;

pub(crate) use cells::{Accessor, Conflict};
pub(crate) use clocks::{Agents, Clocks, MBARRIERS, Units, join};
pub(crate) use races::RaceMap;
pub(crate) use shared::SharedMemory;

/// Where shared memory lies in generic addresses. The low half of each window is zero, so that the low half of a generic
/// address is an address within its space, as on GPUs.
pub(crate) const SHARED_WINDOW: u64 = 0x00f1_0000_0000_0000;
/// Where local memory lies in generic addresses.
pub(crate) const LOCAL_WINDOW: u64 = 0x00f2_0000_0000_0000;
/// Where parameters lie in generic addresses.
pub(crate) const PARAM_WINDOW: u64 = 0x00f3_0000_0000_0000;
