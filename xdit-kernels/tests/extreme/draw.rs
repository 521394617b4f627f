//! Sizes, strides and views, drawn from a tape of numbers.

use half::{bf16, f16};
use std::sync::LazyLock;
use xdit_kernels::{DType, Device, Tensor, Tier, View};

/// Sizes that no memory holds, or whose products wrap. Nothing between what a test has time for and these.
pub(crate) const EXTREME: [usize; 11] = [
    1 << 40,
    1 << 47,
    (1 << 48) + 1,
    1 << 59,
    1 << 60,
    (1 << 61) - 1,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    usize::MAX - 1,
    usize::MAX,
];

/// Whether so many steps are more than a test has time for. More than memory holds is not: that is refused.
pub(crate) fn is_slow(counts: &[usize], most: usize) -> bool {
    let steps = counts.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    steps.is_some_and(|steps| (most..1 << 44).contains(&steps))
}

/// Elements that views look at.
pub(crate) const LEN: usize = if cfg!(miri) { 256 } else { 4096 };

/// What the elements hold, in each dtype.
static DATA: LazyLock<(Vec<f32>, Vec<bf16>, Vec<f16>)> = LazyLock::new(|| {
    let floats: Vec<f32> = (0..LEN)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0)
        .collect();
    let bf16s = floats.iter().map(|&v| bf16::from_f32(v)).collect();
    let f16s = floats.iter().map(|&v| f16::from_f32(v)).collect();
    (floats, bf16s, f16s)
});

/// The processor in each of its tiers.
static DEVICES: LazyLock<Vec<Device>> = LazyLock::new(|| {
    Tier::available()
        .map(|tier| Device::cpu_with(tier).expect("an available tier"))
        .collect()
});

/// A source of choices: the same tape makes the same ones.
pub(crate) struct Draw<'a> {
    tape: &'a [u32],
    at: usize,
    device: &'static Device,
}

impl<'a> Draw<'a> {
    /// Choices for a case on a device that the tape chooses.
    pub(crate) fn new(tape: &'a [u32]) -> Self {
        let device = &DEVICES[tape[0] as usize % DEVICES.len()];
        Self {
            tape,
            at: 0,
            device,
        }
    }

    /// Choices from another tape for the same case.
    pub(crate) fn on(device: &'static Device, tape: &'a [u32]) -> Self {
        Self {
            tape,
            at: 0,
            device,
        }
    }

    /// The device that the case is on.
    pub(crate) fn device(&self) -> &'static Device {
        self.device
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        // The second time round, other numbers.
        let turn = self.at / self.tape.len();
        let word = self.tape[self.at % self.tape.len()] as usize;
        self.at += 1;
        (word.rotate_right(7 * turn as u32) + turn * 13) % n
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A small size, 0 included.
    pub(crate) fn small(&mut self) -> usize {
        match self.below(8) {
            0 => 0,
            1..=5 => 1 + self.below(4),
            _ if cfg!(miri) => 5,
            _ => self.of(&[5, 7, 8, 9, 15, 16, 17, 31, 33]),
        }
    }

    /// Any size; a small one under miri, which ends where memory is refused.
    pub(crate) fn size(&mut self) -> usize {
        if !cfg!(miri) && self.once_in(8) {
            self.of(&EXTREME)
        } else {
            self.small()
        }
    }

    pub(crate) fn sizes<const N: usize>(&mut self) -> [usize; N] {
        let mut sizes = [0; N];
        sizes.fill_with(|| self.size());
        // Without a 0 beside it an extreme size is refused at once: give most of them one.
        if sizes.iter().any(|n| EXTREME.contains(n)) && !self.once_in(4) {
            let at = self.below(N);
            sizes[at] = 0;
        }
        sizes
    }

    pub(crate) fn dtype(&mut self) -> DType {
        self.of(&[DType::F32, DType::F32, DType::BF16, DType::F16])
    }

    /// Strides for a shape: mostly row-major, with gaps, repeats and overlaps, and some that lead anywhere.
    pub(crate) fn strides(&mut self, shape: &[usize]) -> Vec<usize> {
        let mut strides = vec![0; shape.len()];
        let mut step = 1usize;
        for d in (0..shape.len()).rev() {
            strides[d] = match self.below(16) {
                0 => 0,
                1 => 1,
                2 => step.saturating_mul(2),
                3 => step.saturating_add(3),
                4 if self.once_in(4) => self.of(&EXTREME),
                _ => step,
            };
            step = strides[d].max(1).saturating_mul(shape[d].max(1));
        }
        strides
    }

    /// A view of this shape and dtype; `None` if no strides make one (most shapes with an extreme size and no 0).
    pub(crate) fn view_of(&mut self, shape: &[usize], dtype: DType) -> Option<View<'static>> {
        let strides = self.strides(shape);
        let repeat = vec![0; shape.len()];
        [strides, repeat].iter().find_map(|strides| {
            // The last element of the memory is the view's last: who reads further leaves the allocation.
            let skip = LEN - extent(shape, strides)?.min(LEN);
            let (strides, device) = (strides.as_slice(), self.device);
            match dtype {
                DType::BF16 => View::from_slice_strided(&DATA.1[skip..], shape, strides, device),
                DType::F16 => View::from_slice_strided(&DATA.2[skip..], shape, strides, device),
                _ => View::from_slice_strided(&DATA.0[skip..], shape, strides, device),
            }
            .ok()
        })
    }
}

/// Elements from the first to the last that a view touches.
fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let steps = shape.iter().zip(strides);
    steps
        .filter(|&(&n, _)| n > 1)
        .try_fold(1usize, |last, (&n, &stride)| {
            last.checked_add((n - 1).checked_mul(stride)?)
        })
}

/// The view's elements in memory of their own, in order: what a kernel should make the same of.
pub(crate) fn settled(view: &View<'_>) -> Tensor {
    view.to_tensor().expect("memory for a small view")
}
