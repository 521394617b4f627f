//! Sixteen ranks on three axes, and the group of each axis that rank 5 belongs to.

use xdit_comm::{Axis, DeviceMesh, MeshShape, Result, Spec, threads};
use xdit_kernels::{Device, Tensor};

fn main() -> Result<()> {
    let axes = ["data", "experts", "rows"].map(Axis::new);
    let shape = MeshShape::new(axes.into_iter().zip([2, 2, 4]));
    println!("{shape}");
    let groups = threads::run(16, move |world| {
        let mesh = DeviceMesh::new(&world, shape.clone())?;
        let me = Tensor::from_slice(&[world.rank() as f32], [1], &Device::cpu())?;
        let members = |axis| {
            let group = mesh.group(axis)?;
            let all = group.all_gather(&me, &vec![Spec::of(&me); group.world_size()])?;
            Ok((
                axis,
                all.iter()
                    .map(|t| t.to_vec_blocking::<f32>().unwrap()[0] as usize)
                    .collect::<Vec<_>>(),
            ))
        };
        axes.into_iter().map(members).collect::<Result<Vec<_>>>()
    })?;
    for (axis, members) in &groups[5] {
        println!("rank 5 on {axis}: {members:?}");
    }
    Ok(())
}
