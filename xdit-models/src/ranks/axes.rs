//! The axes of the mesh, and their usual order.

use xdit_comm::Axis;
pub use xdit_usp::{RING, ULYSSES};

/// Replicas, which divide the prompts and images.
pub const DATA: Axis = Axis::new("data");
/// The branches of classifier-free guidance.
pub const CFG: Axis = Axis::new("cfg");
/// Pipeline stages.
pub const PIPE: Axis = Axis::new("pipe");

/// All axes, outermost first, in xDiT's order: `rank = ulysses + U·(ring + R·(pipe + P·(cfg + C·data)))`. Ulysses neighbours
/// are adjacent ranks. [`MeshOrder`](crate::MeshOrder) changes the order.
pub const ALL: [Axis; 5] = [DATA, CFG, PIPE, RING, ULYSSES];

/// Returns the axis of this name.
pub(crate) fn named(name: &str) -> Option<Axis> {
    ALL.into_iter().find(|axis| axis.name() == name)
}
