//! Passes a tensor once around a ring. The next hop is in flight while a rank reads the last one.

use xdit_comm::{Result, Spec, threads};
use xdit_kernels::{Device, Tensor};

fn main() -> Result<()> {
    let seen = threads::run(4, |group| {
        let n = group.world_size();
        let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
        let mut held = Tensor::from_slice(&[group.rank() as f32], [1], &Device::cpu())?;
        let mut seen = Vec::new();
        for hop in 0..n {
            let arriving = if hop + 1 < n {
                Some(group.start_send_recv(&held, next, Spec::of(&held), prev)?)
            } else {
                None
            };
            seen.push(held.to_vec_blocking::<f32>().unwrap()[0]);
            if let Some(arriving) = arriving {
                held = arriving.wait_one()?;
            }
        }
        Ok(seen)
    })?;
    for (rank, tensors) in seen.iter().enumerate() {
        println!("rank {rank} saw {tensors:?}");
    }
    Ok(())
}
