use super::*;
use crate::testing::test_devices;
use crate::{DType, Device};
use proptest::prelude::*;

/// f32 -> bf16 -> f32 of a permuted, narrowed view equals indexing by hand.
fn check(dims: [usize; 3], order: [usize; 3], start: usize, device: &Device) {
    let data: Vec<f32> = (0..dims.iter().product::<usize>())
        .map(|i| i as f32 * 0.5 - 7.0)
        .collect();
    let view = View::from_slice(&data, dims, device)
        .unwrap()
        .permute(&order)
        .unwrap();
    let start = start % view.dim(1);
    let view = view.narrow(1, start, view.dim(1) - start).unwrap();
    let copy = cast(view, DType::BF16).unwrap();
    let got = copy.to_vec_blocking::<f32>().unwrap();
    let strides = [dims[1] * dims[2], dims[2], 1];
    let mut i = 0;
    for a in 0..view.dim(0) {
        for b in 0..view.dim(1) {
            for c in 0..view.dim(2) {
                let at =
                    a * strides[order[0]] + (b + start) * strides[order[1]] + c * strides[order[2]];
                assert_eq!(
                    got[i],
                    half::bf16::from_f32(data[at]).to_f32(),
                    "at {a},{b},{c}"
                );
                i += 1;
            }
        }
    }
}

proptest! {
    #[test]
    fn any_view_copies(dims in prop::array::uniform3(1usize..9), start in 0usize..9, order in 0usize..6) {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for device in &test_devices() {
            check(dims, orders[order], start, device);
        }
    }

    #[test]
    fn cat_then_narrow_is_identity(a in 0usize..5, b in 0usize..5, c in 1usize..5, dim in 0usize..2) {
        for device in &test_devices() {
            let shape = |n: usize| if dim == 0 { [n, c] } else { [c, n] };
            let make = |n: usize, from: f32| {
                let data: Vec<f32> = (0..n * c).map(|i| from + i as f32).collect();
                Tensor::from_slice(&data, shape(n), device).unwrap()
            };
            let (x, y) = (make(a, 0.), make(b, 100.));
            let both = cat(&[x.view(), y.view()], dim).unwrap();
            prop_assert_eq!(both.narrow(dim, 0, a).unwrap().to_vec_blocking::<f32>().unwrap(), x.to_vec_blocking::<f32>().unwrap());
            prop_assert_eq!(both.narrow(dim, a, b).unwrap().to_vec_blocking::<f32>().unwrap(), y.to_vec_blocking::<f32>().unwrap());
        }
    }
}

#[test]
fn large_copies_run_in_parallel_and_agree() {
    for device in &test_devices() {
        let data: Vec<f32> = (0..64 * 1024).map(|i| i as f32).collect();
        let x = View::from_slice(&data, [64, 1024], device)
            .unwrap()
            .transpose(0, 1)
            .unwrap();
        let t = contiguous(x).unwrap();
        let got = t.host_slice_blocking::<f32>().unwrap();
        assert_eq!(got[1], 1024.0);
        assert_eq!(got[64], 1.0);
        let back = contiguous(t.view().transpose(0, 1).unwrap()).unwrap();
        assert_eq!(back.host_slice_blocking::<f32>().unwrap(), data);
    }
}

#[test]
fn shapes_that_differ_are_errors() {
    for device in &test_devices() {
        let x = Tensor::zeros([2, 3], DType::F32, device).unwrap();
        let y = Tensor::zeros([2, 4], DType::F32, device).unwrap();
        let e = cat(&[x.view(), y.view()], 0).unwrap_err();
        assert!(e.to_string().contains("differ in dim 0"), "{e}");
        assert!(x.view().reshape([7]).is_err());
        assert!(x.narrow(1, 2, 2).is_err());
        assert!(x.narrow(1, usize::MAX, 2).is_err());
    }
}

/// A tensor that is one long row is divided among threads, which changes nothing.
#[test]
fn long_rows_are_copied_in_pieces() {
    for device in &test_devices() {
        for len in [(1 << 16) - 1, 1 << 16, (1 << 17) + 3] {
            let data: Vec<f32> = (0..2 * len).map(|i| (i % 251) as f32).collect();
            let x = View::from_slice(&data, [len, 2], device).unwrap();
            let bf16 = cast(x, DType::BF16).unwrap();
            assert_eq!(bf16.to_vec_blocking::<f32>().unwrap(), data, "{len}");
            // One column, whose elements are not adjacent.
            let column = contiguous(x.narrow(1, 1, 1).unwrap()).unwrap();
            let want: Vec<f32> = data.iter().copied().skip(1).step_by(2).collect();
            assert_eq!(column.to_vec_blocking::<f32>().unwrap(), want, "{len}");
        }
    }
}

/// Copies with every width of words, steps, a transposition, an empty one and a conversion, into parts of one tensor a dtype.
fn copied_together(device: &Device) -> Vec<Tensor> {
    let mut out = Vec::new();
    for dtype in [DType::F32, DType::BF16, DType::U8] {
        let data: Vec<f32> = (0..2 * 40 * 48).map(|i| (i % 251) as f32).collect();
        let x = Tensor::from_slice(&data, [2, 40, 48], device).unwrap();
        let x = x.to_dtype(dtype).unwrap();
        let wide = Tensor::from_slice(&data[..40 * 48], [40, 48], device).unwrap();
        let x = x.view();
        let first = x.select(0, 0).unwrap();
        let views = [
            first,
            x.select(0, 1).unwrap().narrow(1, 1, 16).unwrap(),
            x.select(0, 1).unwrap().narrow(1, 2, 5).unwrap(),
            x.select(0, 1).unwrap().narrow(1, 0, 0).unwrap(),
            first
                .transpose(0, 1)
                .unwrap()
                .narrow(1, 3, 20)
                .unwrap()
                .narrow(0, 0, 40)
                .unwrap(),
            first
                .transpose(0, 1)
                .unwrap()
                .narrow(1, 3, 7)
                .unwrap()
                .narrow(0, 1, 40)
                .unwrap(),
            wide.view().narrow(1, 4, 3).unwrap(),
        ];
        let columns: usize = views.iter().map(|view| view.dim(1)).sum();
        let mut all = TensorMut::unfilled([40, columns], dtype, device).unwrap();
        let mut at = 0;
        let places = views.iter().map(|view| {
            at += view.dim(1);
            [(1, at - view.dim(1), view.dim(1))]
        });
        let places = all.parts(places).unwrap();
        copy_each(views.into_iter().zip(places).collect()).unwrap();
        out.push(all.freeze().unwrap());
    }
    out
}

#[test]
fn copies_together_are_those_one_by_one() {
    for device in &test_devices() {
        for all in copied_together(device) {
            let got = all
                .view()
                .to_tensor()
                .unwrap()
                .to_dtype(DType::F32)
                .unwrap();
            let got = got.to_vec_blocking::<f32>().unwrap();
            let columns = all.dim(1);
            let number = |i: usize, j: usize| (i * 48 + j) as f32 % 251.0;
            for i in 0..40 {
                let row = &got[i * columns..][..columns];
                let second = |j: usize| number(i + 40, j);
                let want: Vec<f32> = (0..48)
                    .map(|j| number(i, j))
                    .chain((1..17).map(second))
                    .chain((2..7).map(second))
                    .chain((3..23).map(|j| number(j, i)))
                    .chain((3..10).map(|j| number(j, i + 1)))
                    .chain((4..7).map(|j| number(i, j)))
                    .collect();
                assert_eq!(row, want, "{device}, row {i} of {}", all.dtype());
            }
        }
    }
}

#[test]
fn copies_that_do_not_fit_their_places_are_errors() {
    let device = &Device::cpu();
    let x = Tensor::zeros([2, 3], DType::F32, device).unwrap();
    let mut out = TensorMut::zeros([3, 3], DType::F32, device).unwrap();
    let places = out.view_mut().parts([[(0, 0, 2)], [(0, 2, 1)]]).unwrap();
    assert!(copy_each([x.view(), x.view()].into_iter().zip(places).collect()).is_err());
    copy_each(Vec::new()).unwrap();
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::*;
    use crate::testing::gpu;

    #[test]
    #[ignore = "needs a GPU"]
    fn copies_together_on_a_gpu() {
        let gpu = gpu();
        let got = copied_together(&gpu);
        for (got, want) in got.iter().zip(copied_together(&Device::cpu())) {
            let got = got.to_device(&Device::cpu()).unwrap();
            assert_eq!(
                got.host_bytes_blocking().unwrap(),
                want.host_bytes_blocking().unwrap()
            );
        }
    }

    fn launches(gpu: &Device) -> u64 {
        gpu.expect_cuda().launches()
    }

    /// The messages of Ulysses to seven ranks, q, k and v of each: one launch; 60 copies: two.
    #[test]
    #[ignore = "needs a GPU"]
    fn copies_together_on_a_gpu_are_one_launch() {
        let gpu = gpu();
        let launched = |count: usize| {
            let x = Tensor::zeros([2, 9, count, 8], DType::BF16, &gpu).unwrap();
            let mut out = TensorMut::unfilled([count, 2 * 9 * 8], DType::BF16, &gpu).unwrap();
            let places = out.parts((0..count).map(|i| [(0, i, 1)])).unwrap();
            let copies = places.into_iter().enumerate().map(|(i, place)| {
                let heads = x.view().narrow(2, i, 1).unwrap();
                (heads, place.reshape([2, 9, 1, 8]).unwrap())
            });
            let copies = copies.collect();
            let before = launches(&gpu);
            copy_each(copies).unwrap();
            let launched = launches(&gpu) - before;
            gpu.synchronize().unwrap();
            launched
        };
        assert_eq!([2, 21, 56, 60].map(launched), [1, 1, 1, 2]);
        let parts = [2, 3].map(|n| Tensor::zeros([4, n], DType::F32, &gpu).unwrap());
        let before = launches(&gpu);
        cat(&parts.each_ref().map(Tensor::view), 1).unwrap();
        assert_eq!(launches(&gpu) - before, 1);
    }
}
