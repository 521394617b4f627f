//! Matrix products on a GPU, or on the virtual one, against sums in f64.

use super::{
    blas_library::BlasLibrary,
    driver_tests::build_library,
    products::{FusedActivation, ProductOperands, ProductShape},
};
use crate::{DType, Element, Tensor, TensorMut, testing::gpu};
use half::{bf16, f16};

/// Numbers from −1 to 1 that every float of 8 bits of precision holds.
fn number(i: usize) -> f32 {
    ((i * 37 + 11) % 129) as f32 / 64.0 - 1.0
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

/// A product of rows that have a distance larger than their length, in `T`, to `U`.
fn check<T: Element, U: Element>(
    [m, n, k]: [usize; 3],
    has_bias: bool,
    activation: FusedActivation,
    of: fn(f32) -> T,
    to: fn(f32) -> U,
    back: fn(U) -> f32,
    tolerance: f64,
) {
    let device = gpu();
    let (x_stride, y_stride) = (k + 8, n + 8);
    let tensor = |n: usize, first: usize| {
        let values: Vec<T> = (0..n).map(|i| of(number(i + first))).collect();
        Tensor::from_slice(&values, [n], &device).unwrap()
    };
    let (x, weight) = (tensor(m * x_stride, 3), tensor(n * k, 5));
    let bias: Vec<U> = (0..n).map(|i| to(number(i))).collect();
    let bias = Tensor::from_slice(&bias, [n], &device).unwrap();
    let mut y = TensorMut::zeros([m, y_stride], U::DTYPE, &device).unwrap();
    let shape = ProductShape {
        m,
        n,
        k,
        x_stride,
        y_stride,
        dtype: T::DTYPE,
        y_dtype: U::DTYPE,
        activation,
    };
    // Twice: the second product takes the plan of the first.
    for _ in 0..2 {
        let operands = ProductOperands {
            x: x.view().ptr(),
            weight: weight.view().ptr(),
            bias: if has_bias {
                bias.view().ptr()
            } else {
                std::ptr::null()
            },
            y: y.view_mut().ptr(),
        };
        // SAFETY: the tensors have the sizes of the shape.
        unsafe { device.expect_cuda().product("test", shape, operands) }.unwrap();
    }
    let y = y.freeze().to_vec_blocking::<U>().unwrap();
    for row in 0..m {
        for column in 0..y_stride {
            let got = f64::from(back(y[row * y_stride + column]));
            let mut expected = 0.0;
            if column < n {
                for i in 0..k {
                    expected += f64::from(number(row * x_stride + i + 3))
                        * f64::from(number(column * k + i + 5));
                }
                expected += if has_bias {
                    f64::from(number(column))
                } else {
                    0.0
                };
                if activation == FusedActivation::Gelu {
                    expected = gelu(expected);
                }
            }
            // One rounding of sums of up to k.
            let most = tolerance * expected.abs().max(1.0);
            assert!(
                (got - expected).abs() <= most,
                "{shape:?} {row} {column}: {got} {expected}"
            );
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn products_are_sums_with_bias_and_gelu() {
    for shape in [[5, 7, 3], [1, 16, 24], [33, 2, 8], [1, 1, 1]] {
        for has_bias in [false, true] {
            for activation in [FusedActivation::None, FusedActivation::Gelu] {
                check(shape, has_bias, activation, |x| x, |x| x, |x| x, 1e-5);
                let (of, back) = (bf16::from_f32, bf16::to_f32);
                check(shape, has_bias, activation, of, of, back, 1.0 / 128.0);
                check(shape, has_bias, activation, of, |x| x, |x| x, 1e-5);
                let (of, back) = (f16::from_f32, f16::to_f32);
                check(shape, has_bias, activation, of, of, back, 1.0 / 1024.0);
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn workspace_of_two_queues_is_not_shared() {
    let device = gpu();
    let fork = device.fork();
    let x = Tensor::zeros([64, 64], DType::F32, &device).unwrap();
    fork.wait(&device.record());
    let shape = ProductShape {
        m: 64,
        n: 64,
        k: 64,
        x_stride: 64,
        y_stride: 64,
        dtype: DType::F32,
        y_dtype: DType::F32,
        activation: FusedActivation::None,
    };
    for _ in 0..3 {
        for queue in [&device, &fork] {
            let mut y = TensorMut::zeros([64, 64], DType::F32, queue).unwrap();
            let operands = ProductOperands {
                x: x.view().ptr(),
                weight: x.view().ptr(),
                bias: std::ptr::null(),
                y: y.view_mut().ptr(),
            };
            // SAFETY: the tensors have the sizes of the shape.
            unsafe { queue.expect_cuda().product("test", shape, operands) }.unwrap();
        }
    }
    device.synchronize().unwrap();
    fork.synchronize().unwrap();
}

#[test]
fn a_library_that_lacks_a_function_is_one_clear_line() {
    let folder = build_library(
        "blas",
        "libcublasLt.so.13",
        "int cublasLtCreate() { return 0; }\n",
    );
    let error = BlasLibrary::open(std::slice::from_ref(&folder)).unwrap_err();
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(
        error,
        "cuBLASLt has no cublasLtDestroy; install cuBLAS of CUDA 12.0 or newer"
    );
}
