#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod heads;
mod plan;
mod ring;
#[cfg(test)]
mod tests;
mod ulysses;

pub use plan::{SequencePlan, ShardOrder};
pub use ring::Ring;
pub use ulysses::Ulysses;

use xdit_comm::{Axis, DeviceMesh};
use xdit_kernels::{Result, attention::Attention};

/// The axis over which keys and values go round.
pub const RING: Axis = Axis::new("ring");
/// The axis over which heads are exchanged for tokens.
pub const ULYSSES: Axis = Axis::new("ulysses");

/// Ulysses around Ring around `inner`, over the axes [`ULYSSES`] and [`RING`] of a mesh.
///
/// # Errors
/// If the mesh has no such axes.
pub fn usp<A: Attention>(
    mesh: &DeviceMesh,
    order: ShardOrder,
    inner: A,
) -> Result<Ulysses<Ring<A>>> {
    let plan = plan(mesh, order)?;
    let ring = Ring::new(mesh.group(RING)?.clone(), plan, inner)?;
    Ulysses::new(mesh.group(ULYSSES)?.clone(), plan, mesh.coord(RING)?, ring)
}

/// The plan of a mesh's axes [`RING`] and [`ULYSSES`].
///
/// # Errors
/// If the mesh has no such axes.
pub fn plan(mesh: &DeviceMesh, order: ShardOrder) -> Result<SequencePlan> {
    Ok(SequencePlan {
        ring: mesh.group(RING)?.world_size(),
        ulysses: mesh.group(ULYSSES)?.world_size(),
        order,
    })
}
