//! The axes on which ranks share out pictures, and their order in the mesh.

use xdit_comm::Axis;
pub use xdit_usp::{RING, ULYSSES};

/// Replicas: prompts and images are shared out.
pub const DATA: Axis = Axis::new("data");
/// The branches of classifier-free guidance.
pub const CFG: Axis = Axis::new("cfg");
/// Pipeline stages.
pub const PIPE: Axis = Axis::new("pipe");

/// Outermost first, in xDiT's order: `rank = ulysses + U·(ring + R·(pipe + P·(cfg + C·data)))`. Ulysses neighbours are adjacent
/// ranks.
pub const ALL: [Axis; 5] = [DATA, CFG, PIPE, RING, ULYSSES];
