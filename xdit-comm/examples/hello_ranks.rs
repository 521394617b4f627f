//! Four ranks print their numbers and compute a sum.

use xdit_comm::{ReduceOp, Result, threads};
use xdit_kernels::{Device, Tensor};

fn main() -> Result<()> {
    let lines = threads::run(4, |group| {
        let mine = Tensor::from_slice(&[group.rank() as f32 + 1.0], [1], &Device::cpu())?;
        let sum = group
            .all_reduce(&mine, ReduceOp::Sum)?
            .to_vec_blocking::<f32>()
            .unwrap()[0];
        Ok(format!(
            "rank {} of {}: the sum is {sum}",
            group.rank(),
            group.world_size()
        ))
    })?;
    for line in lines {
        println!("{line}");
    }
    Ok(())
}
