//! Tensors and views: memory that is owned, borrowed, cut and converted.
//!
//! `cargo run --release -p xdit-kernels --example 01-tensor`

use xdit_kernels::{DType, Device, Result, Tensor, TensorMut, View, layout};

fn main() -> Result<()> {
    let cpu = &Device::cpu();
    // A tensor is immutable and cheap to clone: clones share memory.
    let x_lc = Tensor::from_slice(&[1f32, 2., 3., 4., 5., 6.], [3, 2], cpu)?;
    println!("{x_lc:?}: {:?}", x_lc.to_vec_blocking::<f32>()?);

    // A view borrows a slice of anybody's. Cutting and turning it moves no element.
    let borrowed: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let view = View::from_slice(&borrowed, [3, 4], cpu)?;
    let corner = view.narrow(0, 1, 2)?.narrow(1, 2, 2)?.transpose(0, 1)?;
    println!(
        "{corner:?}: {:?}",
        corner.to_tensor()?.to_vec_blocking::<f32>()?
    );

    // Two streams side by side in one tensor, each written in place.
    let mut joint = TensorMut::zeros([4, 2], DType::F32, cpu)?;
    layout::copy_into(&x_lc, joint.view_mut().narrow(0, 0, 3)?)?;
    layout::copy_into(corner.narrow(0, 0, 1)?, joint.view_mut().narrow(0, 3, 1)?)?;
    println!("joint: {:?}", joint.freeze().to_vec_blocking::<f32>()?);

    // Other dtypes round to nearest even.
    let third = Tensor::from_slice(&[1f32 / 3.0], [1], cpu)?;
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        println!(
            "1/3 in {dtype}: {}",
            third.to_dtype(dtype)?.to_vec_blocking::<f32>()?[0]
        );
    }

    // What does not fit is an error that says why.
    if let Err(error) = View::from_slice(&borrowed, [5, 3], cpu) {
        println!("{error}");
    }
    Ok(())
}
