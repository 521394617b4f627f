//! The axes of a mesh that carry a sequence.

use crate::{Result, SequencePlan, ShardOrder};
use xdit_comm::{Axis, DeviceMesh};

/// The axis over which keys and values pass around the ring.
pub const RING: Axis = Axis::new("ring");
/// The axis over which ranks exchange heads for tokens.
pub const ULYSSES: Axis = Axis::new("ulysses");

/// Returns the plan for the axes [`RING`] and [`ULYSSES`] of a mesh.
///
/// # Errors
/// If the mesh does not have these axes.
pub fn plan(mesh: &DeviceMesh, order: ShardOrder) -> Result<SequencePlan> {
    Ok(SequencePlan {
        ring: mesh.group(RING)?.world_size(),
        ulysses: mesh.group(ULYSSES)?.world_size(),
        order,
    })
}
