//! The axes of a mesh that carry a sequence.

use crate::{Result, SequencePlan, ShardOrder};
use xdit_comm::{Axis, DeviceMesh};

/// The axis over which keys and values go round.
pub const RING: Axis = Axis::new("ring");
/// The axis over which heads are exchanged for tokens.
pub const ULYSSES: Axis = Axis::new("ulysses");

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
