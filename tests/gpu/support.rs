//! A GPU beside the processor, tensors for both, and how far their results may be apart.

use xdit_kernels::{DType, Device, Result, Tensor};

/// What kernels compute with.
pub(crate) const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// How much is computed. On the virtual GPU, whose every instruction is interpreted, the tests are the same with fewer and
/// smaller operands: `XDIT_GPU_TESTS=small`.
pub(crate) fn is_small() -> bool {
    match std::env::var("XDIT_GPU_TESTS").as_deref() {
        Ok("small") => true,
        Ok(other) => panic!("XDIT_GPU_TESTS={other}: it is `small` or not set"),
        Err(_) => false,
    }
}

/// These, and unless the tests are small those.
pub(crate) fn sizes<T: Clone>(always: &[T], large: &[T]) -> Vec<T> {
    let large = if is_small() { &[] } else { large };
    [always, large].concat()
}

/// The first GPU. Where there is none, the test fails with the reason.
pub(crate) fn gpu() -> Device {
    Device::cuda(0).unwrap_or_else(|error| panic!("this test needs a GPU: {error}"))
}

/// Numbers from −10 to 10 that a seed tells apart.
pub(crate) fn tensor(shape: &[usize], dtype: DType, seed: usize, device: &Device) -> Tensor {
    scaled(shape, dtype, seed, 10.0, device)
}

/// Numbers from −`most` to `most`.
pub(crate) fn scaled(
    shape: &[usize],
    dtype: DType,
    seed: usize,
    most: f32,
    device: &Device,
) -> Tensor {
    let n = shape.iter().product::<usize>();
    let data: Vec<f32> = (0..n)
        .map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 * 0.001 - 1.0) * most)
        .collect();
    Tensor::from_slice(&data, shape, device)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

/// The elements as f32.
pub(crate) fn floats(x: &Tensor) -> Vec<f32> {
    x.to_vec_blocking().unwrap()
}

/// How far a result on the GPU may be from the processor's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// As a part of the greatest number of the result.
    pub(crate) of_greatest: f32,
    /// In distances between neighbours of the result's 16 bits, at the element itself.
    pub(crate) neighbours: f32,
}

impl Tolerance {
    /// The order of f32 sums in a row, which may also decide a rounding.
    pub(crate) const ROUNDING: Self = Self {
        of_greatest: 1e-6,
        neighbours: 1.0,
    };

    /// The distance between neighbours near 1.
    pub(crate) fn step(dtype: DType) -> f32 {
        match dtype {
            DType::BF16 => 1.0 / 128.0,
            DType::F16 => 1.0 / 1024.0,
            _ => 0.0,
        }
    }

    pub(crate) fn assert(self, what: &str, got: &Tensor, want: &Tensor) {
        let sizes = |x: &Tensor| (x.shape().to_vec(), x.dtype());
        assert_eq!(sizes(got), sizes(want), "{what}");
        let step = self.neighbours * Self::step(want.dtype());
        let (got, want) = (floats(got), floats(want));
        let finite = want.iter().filter(|x| x.is_finite());
        let greatest = finite.fold(0f32, |most, x| most.max(x.abs()));
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let near = (got - want).abs() <= want.abs() * step + greatest * self.of_greatest;
            assert!(
                near || got == want,
                "{what}: element {i} is {got}, not {want}"
            );
        }
    }
}

/// The processor and a GPU.
pub(crate) struct Pair {
    pub(crate) cpu: Device,
    pub(crate) gpu: Device,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self {
            cpu: Device::cpu(),
            gpu: gpu(),
        }
    }

    /// Asserts that an operation gives on the GPU what it gives on the processor, but for rounding.
    pub(crate) fn same(&self, what: &str, of: impl Fn(&Device) -> Result<Tensor>) {
        self.within(Tolerance::ROUNDING, what, of);
    }

    pub(crate) fn within(
        &self,
        tolerance: Tolerance,
        what: &str,
        of: impl Fn(&Device) -> Result<Tensor>,
    ) {
        tolerance.assert(what, &of(&self.gpu).unwrap(), &of(&self.cpu).unwrap());
    }
}
