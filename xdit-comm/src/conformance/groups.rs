//! Tests of groups that are split from groups.

use super::support::{ensure, numbers, same, spec};
use crate::{Axis, DeviceMesh, Group, MeshShape, ReduceOp, Result};

pub(super) fn split_orders_by_key(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    let reversed = group.split(0, n - me)?;
    ensure(
        reversed.rank() == n - 1 - me && reversed.world_size() == n,
        || {
            format!(
                "split: rank {} of {}",
                reversed.rank(),
                reversed.world_size()
            )
        },
    )?;
    let parity = group.split(me % 2, 0)?;
    ensure(
        parity.rank() == me / 2 && parity.world_size() == (n + 1 - me % 2) / 2,
        || {
            format!(
                "split by parity: rank {} of {}",
                parity.rank(),
                parity.world_size()
            )
        },
    )
}

pub(super) fn subgroups_are_apart(group: &Group) -> Result<()> {
    let me = group.rank();
    let parity = group.split(me % 2, me)?;
    // Different numbers of operations in the two subgroups, and the whole group's in between.
    for _ in 0..=(me % 2) * 3 {
        let sum = parity.all_reduce(&numbers(me % 2, 1)?, ReduceOp::Max)?;
        same("in the subgroup", &sum, &numbers(me % 2, 1)?)?;
    }
    let all = group.all_reduce(&numbers(me, 1)?, ReduceOp::Max)?;
    same("in the whole", &all, &numbers(group.world_size() - 1, 1)?)
}

pub(super) fn mesh(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (rows, columns) = (Axis::new("rows"), Axis::new("columns"));
    let width = if n.is_multiple_of(2) { 2 } else { 1 };
    let shape = MeshShape::new([(rows, n / width), (columns, width)]);
    let mesh = DeviceMesh::new(group, shape)?;
    let (row, column) = (mesh.coord(rows)?, mesh.coord(columns)?);
    ensure(column + width * row == group.rank(), || {
        format!("mesh: rank {} at row {row}, column {column}", group.rank())
    })?;
    let specs = vec![spec(1); width];
    let neighbours = mesh
        .group(columns)?
        .all_gather(&numbers(group.rank(), 1)?, &specs)?;
    for (i, t) in neighbours.iter().enumerate() {
        same("neighbours", t, &numbers(row * width + i, 1)?)?;
    }
    Ok(())
}
