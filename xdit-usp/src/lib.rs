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

/// Ulysses around Ring around `inner`, over the axes of these names of a mesh.
///
/// # Errors
/// None in practice: the plan is made from the mesh.
pub fn usp<A: Attention>(
    mesh: &DeviceMesh,
    order: ShardOrder,
    inner: A,
) -> Result<Ulysses<Ring<A>>> {
    let plan = plan(mesh, order);
    let ring = Ring::new(mesh.group(Axis::Ring).clone(), plan, inner)?;
    Ulysses::new(
        mesh.group(Axis::Ulysses).clone(),
        plan,
        mesh.coord(Axis::Ring),
        ring,
    )
}

/// The plan of a mesh's ring and Ulysses axes.
pub fn plan(mesh: &DeviceMesh, order: ShardOrder) -> SequencePlan {
    let degrees = mesh.degrees();
    SequencePlan {
        ring: degrees.ring,
        ulysses: degrees.ulysses,
        order,
    }
}
