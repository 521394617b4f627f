//! Sixteen ranks on the five axes, and the group of each axis that rank 5 belongs to.

use xdit_comm::{Axis, Degrees, DeviceMesh, Result, Spec, threads};
use xdit_kernels::Tensor;

fn main() -> Result<()> {
    let degrees = Degrees {
        data: 2,
        cfg: 2,
        pipe: 2,
        ring: 1,
        ulysses: 2,
    };
    let groups = threads::run(16, move |world| {
        let mesh = DeviceMesh::new(&world, degrees)?;
        let me = Tensor::from_slice(&[world.rank() as f32], [1])?;
        let members = |axis| {
            let group = mesh.group(axis);
            let all = group.all_gather(&me, &vec![Spec::of(&me); group.world_size()])?;
            Ok((
                axis,
                all.iter()
                    .map(|t| t.to_f32_vec()[0] as usize)
                    .collect::<Vec<_>>(),
            ))
        };
        Axis::ALL
            .into_iter()
            .map(members)
            .collect::<Result<Vec<_>>>()
    })?;
    println!("{degrees}");
    for (axis, members) in &groups[5] {
        println!("rank 5 on {axis}: {members:?}");
    }
    Ok(())
}
