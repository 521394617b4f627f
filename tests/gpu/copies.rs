//! Copies between layouts and dtypes, rows of tables, and bytes of pictures.

use crate::support::{FLOATS, Pair, floats, gpu, tensor};
use xdit_kernels::{
    DType, Device, Tensor, TensorMut,
    elementwise::{add, add_into, scale_shift},
    embedding::embedding,
    layout::{cast, contiguous, copy_into},
    pixels::rgb8,
};

#[test]
#[ignore = "needs a GPU"]
fn copies_casts_and_rows_of_tables() {
    let pair = Pair::new();
    for dtype in FLOATS {
        let x = |device: &Device| tensor(&[2, 3, 10, 4, 5], dtype, 1, device);
        for order in [
            [0, 1, 2, 3, 4],
            [0, 2, 1, 3, 4],
            [4, 0, 1, 3, 2],
            [2, 3, 4, 0, 1],
            [1, 0, 4, 2, 3],
        ] {
            pair.same("permuted", |device| {
                contiguous(x(device).view().permute(&order)?)
            });
            for to in FLOATS {
                pair.same("cast", |device| cast(x(device).view().permute(&order)?, to));
            }
        }
        pair.same("transposed", |d| {
            contiguous(tensor(&[2, 33, 40], dtype, 1, d).view().transpose(1, 2)?)
        });
        pair.same("rows", |d| {
            contiguous(tensor(&[7, 48], dtype, 1, d).view().narrow(1, 16, 16)?)
        });
        pair.same("odd rows", |d| {
            contiguous(tensor(&[7, 48], dtype, 1, d).view().narrow(1, 3, 5)?)
        });
        pair.same("cat", |device| {
            let (a, b) = (
                tensor(&[3, 4], dtype, 1, device),
                tensor(&[3, 2], dtype, 2, device),
            );
            Tensor::cat(&[a.view(), b.view(), a.view()], 1)
        });
        pair.same("into a transposed output", |device| {
            let x = tensor(&[9, 12], dtype, 1, device);
            let mut out = TensorMut::zeros([9, 30], dtype, device)?;
            copy_into(&x, out.view_mut().narrow(1, 7, 12)?)?;
            Ok(out.freeze())
        });
        pair.same("embedding", |device| {
            let ids = Tensor::from_slice(&[4u32, 0, 2, 2], [4], device)?;
            embedding(
                tensor(&[5, 24], dtype, 1, device).view().narrow(1, 8, 16)?,
                &ids,
            )
        });
        pair.same("bytes", |device| {
            let bytes = Tensor::from_slice(&[0u8, 1, 255, 7, 9, 100], [2, 3], device)?;
            cast(bytes.view().transpose(0, 1)?, dtype)
        });
    }
    for dtype in FLOATS {
        for size in [[2, 3, 4, 6], [2, 3, 3, 5]] {
            let bytes = |device: &Device| -> Vec<u8> {
                let planes = scale_shift(&tensor(&size, dtype, 1, device), 0.06, 0.5).unwrap();
                rgb8(&planes).unwrap().to_vec_blocking().unwrap()
            };
            assert_eq!(bytes(&pair.gpu), bytes(&pair.cpu));
        }
    }
    let device = pair.gpu;
    let ids = Tensor::from_slice(&[1u32, 5], [2], &device).unwrap();
    let rows = floats(&embedding(&tensor(&[5, 3], DType::F32, 1, &device), &ids).unwrap());
    assert!(rows[..3].iter().all(|x| x.is_finite()) && rows[3..].iter().all(|x| x.is_nan()));
    let masks = Tensor::from_slice(&[1.5f32, -2.0, 300.0, f32::NAN], [2, 2], &device).unwrap();
    let masks = cast(masks.view().transpose(0, 1).unwrap(), DType::U8).unwrap();
    assert_eq!(masks.to_vec_blocking::<u8>().unwrap(), [1, 255, 0, 0]);
    let ids = Tensor::from_slice(&[1u32, 2, 3, 4], [2, 2], &device).unwrap();
    let turned = contiguous(ids.view().transpose(0, 1).unwrap()).unwrap();
    assert_eq!(turned.to_vec_blocking::<u32>().unwrap(), [1, 3, 2, 4]);
    assert!(cast(&ids, DType::F32).is_err());
}

#[test]
#[ignore = "needs a GPU"]
fn copies_of_operands_are_made_on_the_queue_of_the_output() {
    let compute = gpu();
    let x = tensor(&[40, 96], DType::F32, 1, &compute);
    let send = compute.fork();
    send.wait(&compute.record());
    // Work of the first queue, behind which a copy that is made there comes late.
    let mut busy = x.clone();
    for _ in 0..8 {
        busy = add(&busy, &busy).unwrap();
    }
    let columns = x.view().transpose(0, 1).unwrap();
    let mut out = TensorMut::zeros([96, 40], DType::F32, &send).unwrap();
    add_into(columns, columns, out.view_mut()).unwrap();
    let got = floats(&out.freeze());
    let cpu = tensor(&[40, 96], DType::F32, 1, &Device::cpu());
    let columns = cpu.view().transpose(0, 1).unwrap();
    assert_eq!(got, floats(&add(columns, columns).unwrap()));
}
