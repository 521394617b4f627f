//! What row kernels of a GPU are given beside their main operand: parameters and further operands, of any float dtype.

use crate::{
    DType, Device, Result, Tensor, View, cuda::Args, cuda::DeviceWalk, dtype::FloatType, layout,
};

/// Vectors of a row that a thread keeps: `KEPT_VECTORS` of prelude.cuh.
pub(crate) const KEPT_VECTORS: usize = 2;

/// How a kernel reads an operand: `Kind` of prelude.cuh.
const ABSENT: u32 = 0;
const F32: u32 = 1;
const SAME: u32 = 2;

/// An `OPERAND` of prelude.cuh: rows of adjacent elements in f32 or in the dtype of the kernel's data, or none.
pub(crate) struct KernelOperand<'a> {
    view: Option<View<'a>>,
    /// In place of the view, if that is neither.
    copy: Option<Tensor>,
    kind: u32,
}

impl<'a> KernelOperand<'a> {
    /// A kernel of `device` for `data` reads x, if there is one.
    pub(crate) fn new(x: Option<View<'a>>, data: DType, device: &'a Device) -> Result<Self> {
        let Some(view) = x.map(|x| x.on(device)) else {
            return Ok(Self {
                view: None,
                copy: None,
                kind: ABSENT,
            });
        };
        let adjacent =
            view.strides().last().is_none_or(|&s| s == 1) || view.shape().last() == Some(&1);
        let kind = match view.dtype() {
            DType::F32 => F32,
            same if same == data => SAME,
            // f32 holds each number of the others.
            _ => F32,
        };
        let fits = adjacent && (view.dtype() == data || view.dtype() == DType::F32);
        let dtype = if kind == SAME { data } else { DType::F32 };
        Ok(Self {
            copy: (!fits).then(|| layout::cast(view, dtype)).transpose()?,
            view: Some(view),
            kind,
        })
    }

    fn read(&self) -> Option<View<'_>> {
        self.copy.as_ref().map(Tensor::view).or(self.view)
    }

    /// Strides in elements, of what the kernel reads.
    pub(crate) fn strides(&self) -> Vec<usize> {
        self.read()
            .map_or(Vec::new(), |view| view.strides().to_vec())
    }

    /// Whether rows `stride` elements apart begin at multiples of 16 bytes.
    pub(crate) fn is_aligned(&self, stride: usize) -> bool {
        self.read().is_none_or(|view| {
            let bytes = stride * view.dtype().size();
            view.ptr().addr().is_multiple_of(16) && bytes.is_multiple_of(16)
        })
    }

    /// The address, null where there is no operand.
    pub(crate) fn address(&self) -> *const u8 {
        self.read().map_or(std::ptr::null(), |view| view.ptr())
    }

    /// How the kernel reads it.
    pub(crate) fn kind(&self) -> u32 {
        self.kind
    }

    /// The three parameters of an `OPERAND` whose rows are `stride` elements apart.
    pub(crate) fn push(&self, args: &mut Args, stride: usize) {
        args.push(self.address());
        args.push(stride as u64);
        args.push(self.kind);
    }

    /// The stride of the first dim where there are two, else 0: for parameters [c], or a row of them for each batch entry.
    pub(crate) fn row_stride(&self) -> usize {
        match self.strides()[..] {
            [stride, _] => stride,
            _ => 0,
        }
    }
}

/// Elements of a vector of 16 bytes.
pub(crate) fn vector_of(dtype: FloatType) -> usize {
    16 / dtype.size()
}

/// Whether kernels may read and write rows of these operands by vectors of 16 bytes.
pub(crate) fn by_vectors<const N: usize>(
    walk: &DeviceWalk<N>,
    dtype: FloatType,
    addresses: &[*const u8],
) -> bool {
    let aligned = |at: &*const u8| at.addr().is_multiple_of(16);
    walk.has_vectors(vector_of(dtype)) && addresses.iter().all(aligned)
}

/// The kernel for f32, bf16 or f16.
pub(crate) fn kernel_of([f32, bf16, f16]: [&'static str; 3], dtype: FloatType) -> &'static str {
    match dtype {
        FloatType::F32 => f32,
        FloatType::BF16 => bf16,
        FloatType::F16 => f16,
    }
}
