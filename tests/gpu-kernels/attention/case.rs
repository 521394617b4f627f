//! One call of attention, and the kernel that computes it.

use xdit_kernels::DType;

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) dtype: DType,
    pub(super) b: usize,
    pub(super) h_kv: usize,
    pub(super) group: usize,
    pub(super) lq: usize,
    pub(super) lk: usize,
    pub(super) d: usize,
    pub(super) causal: bool,
    /// A key mask, which hides every key of the last batch where there are several.
    pub(super) key_mask: bool,
    /// Which of the first three dims of the bias are 1, if there is one.
    pub(super) bias: Option<[bool; 3]>,
    pub(super) scale: Option<f32>,
    /// The keys from here on are added by a second launch.
    pub(super) split: Option<usize>,
    /// Whether the output is f32 in any case.
    pub(super) out_f32: bool,
    /// Whether hidden keys and values are NaN.
    pub(super) poison: bool,
    /// How far scores spread, roughly.
    pub(super) spread: f32,
    /// Whether plain multiply-adds compute what the tensor units could.
    pub(super) plain: bool,
    /// Whether the GPU has compute capability 9.0.
    pub(super) hopper: bool,
}

impl Case {
    pub(super) fn new(dtype: DType, lq: usize, lk: usize, d: usize) -> Self {
        Self {
            dtype,
            b: 1,
            h_kv: 1,
            group: 1,
            lq,
            lk,
            d,
            causal: false,
            key_mask: false,
            bias: None,
            scale: None,
            split: None,
            out_f32: false,
            poison: false,
            spread: 1.0,
            plain: false,
            hopper: false,
        }
    }

    /// Whether the kernel is one of `fma.cu`, by the rules of the host.
    pub(super) fn on_fma(&self) -> bool {
        self.plain
            || self.dtype == DType::F32
            || self.d > 128
            || !self.d.is_multiple_of(8)
            || self.bias.is_some()
            || self.scale.is_some_and(|scale| scale <= 0.0)
    }

    /// Whether the kernel is one of `flash.sm_90a.cu`, by the rules of the host.
    pub(super) fn on_wgmma(&self) -> bool {
        self.hopper && !self.on_fma() && !self.causal && !self.key_mask
    }

    /// The head dim of the kernel on tensor units.
    pub(super) fn padded(&self) -> usize {
        [32, 64, 96, 128]
            .into_iter()
            .find(|&padded| self.d <= padded)
            .expect("a head dim of tensor units")
    }

    pub(super) fn kernel(&self) -> String {
        let dtype = self.dtype.to_string();
        if self.on_fma() {
            format!("flash_{dtype}")
        } else if self.on_wgmma() {
            format!("flash_wgmma_{dtype}_d{}", self.padded())
        } else {
            format!("flash_{dtype}_d{}", self.padded())
        }
    }
}
