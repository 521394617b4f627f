//! Strided tensors, the interpreter's memory that holds them, and the parameters of kernels.

use half::{bf16, f16};
use ptx_interp::{Entry, FlatMemory};
use xdit_kernels::{DType, Device, Shape, Tensor, View};

/// What kernels compute with.
pub(crate) const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// A tensor, and the part of it that a kernel sees.
#[derive(Clone)]
pub(crate) struct Strided {
    pub(crate) whole: Tensor,
    /// First entry and number of entries of each dim.
    ranges: Vec<(usize, usize)>,
    /// The order in which a kernel sees the dims.
    order: Vec<usize>,
}

impl Strided {
    /// A whole tensor.
    pub(crate) fn of(whole: Tensor) -> Self {
        let ranges = whole.shape().iter().map(|&n| (0, n)).collect();
        let order = (0..whole.shape().len()).collect();
        Self {
            whole,
            ranges,
            order,
        }
    }

    /// Numbers between −2 and 2, of a tensor that has `margin` more entries in its last dim, half of them in front.
    pub(crate) fn random(draw: &mut Draw, dtype: DType, shape: &[usize], margin: usize) -> Self {
        let mut padded = shape.to_vec();
        *padded.last_mut().expect("a dim") += margin;
        let mut out = Self::of(draw.tensor(dtype, padded.as_slice()));
        *out.ranges.last_mut().expect("a dim") = (margin / 2, shape[shape.len() - 1]);
        out
    }

    /// The same elements with the dims in this order.
    pub(crate) fn permuted(mut self, order: &[usize]) -> Self {
        self.order = order.iter().map(|&dim| self.order[dim]).collect();
        self
    }

    /// A part of it. The dim is that of the whole tensor.
    pub(crate) fn narrowed(mut self, dim: usize, start: usize, len: usize) -> Self {
        self.ranges[dim] = (self.ranges[dim].0 + start, len);
        self
    }

    pub(crate) fn view(&self) -> View<'_> {
        let mut view = self.whole.view();
        for (dim, &(start, len)) in self.ranges.iter().enumerate() {
            view = view.narrow(dim, start, len).expect("a range of the dim");
        }
        // Each dim in turn is brought to its place.
        let mut now: Vec<usize> = (0..self.order.len()).collect();
        for (to, dim) in self.order.iter().enumerate() {
            let from = now.iter().position(|d| d == dim).expect("a permutation");
            view = view.transpose(to, from).expect("two dims");
            now.swap(to, from);
        }
        view
    }

    pub(crate) fn strides(&self) -> Vec<usize> {
        self.view().strides().to_vec()
    }

    /// Elements in front of the first that the view shows.
    fn offset(&self) -> usize {
        let strides = self.whole.shape().iter().rev().scan(1, |step, n| {
            let stride = *step;
            *step *= n;
            Some(stride)
        });
        let ranges = self.ranges.iter().rev();
        strides.zip(ranges).map(|(s, (start, _))| s * start).sum()
    }
}

/// A memory being filled for a launch.
#[derive(Clone, Default)]
pub(crate) struct Memory(pub(crate) FlatMemory);

impl Memory {
    /// The address of the first element of the view.
    pub(crate) fn put(&mut self, x: &Strided) -> u64 {
        self.0.put(&bytes(&x.whole)) + (x.offset() * x.whole.dtype().size()) as u64
    }

    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        self.0.put(bytes)
    }

    /// The address of `count` f64 that nobody has written.
    pub(crate) fn f64_output(&mut self, count: usize) -> u64 {
        self.0.allocate(8 * count)
    }

    /// The address of the first element of an output that lies like `x` and that nobody has written.
    pub(crate) fn output(&mut self, x: &Strided) -> u64 {
        let size = x.whole.dtype().size();
        self.0.allocate(x.whole.view().numel() * size) + (x.offset() * size) as u64
    }
}

/// The bytes of a tensor, row-major.
pub(crate) fn bytes(x: &Tensor) -> Vec<u8> {
    macro_rules! of {
        ($T:ty) => {
            x.to_vec_blocking::<$T>()
                .expect("a tensor of this type")
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect()
        };
    }
    match x.dtype() {
        DType::F32 => of!(f32),
        DType::BF16 => of!(bf16),
        DType::F16 => of!(f16),
        DType::U8 => of!(u8),
        DType::U32 => of!(u32),
        other => unreachable!("no kernel takes {other}"),
    }
}

/// The parameters of a launch, in order.
#[derive(Clone, Default)]
pub(crate) struct Args(Vec<Vec<u8>>);

impl Args {
    pub(crate) fn u32(mut self, x: u32) -> Self {
        self.0.push(x.to_le_bytes().to_vec());
        self
    }

    pub(crate) fn u64(mut self, x: u64) -> Self {
        self.0.push(x.to_le_bytes().to_vec());
        self
    }

    pub(crate) fn f32(mut self, x: f32) -> Self {
        self.0.push(x.to_le_bytes().to_vec());
        self
    }

    /// More parameters.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// A struct by its bytes.
    pub(crate) fn of(mut self, parts: Self) -> Self {
        self.0.push(parts.0.concat());
        self
    }

    /// Overwrites bytes of a parameter.
    pub(crate) fn overwrite(&mut self, param: usize, at: usize, bytes: &[u8]) {
        self.0[param][at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The address that is a part of a parameter.
    pub(crate) fn address(&self, param: usize, at: usize) -> u64 {
        let bytes = self.0[param][at..].first_chunk();
        u64::from_le_bytes(*bytes.expect("the bytes of an address"))
    }

    /// All parameters of this kernel.
    pub(crate) fn bytes(&self, entry: &Entry) -> Vec<u8> {
        let name = entry.name();
        assert_eq!(
            entry.params().len(),
            self.0.len(),
            "the parameters of {name}"
        );
        let mut out = vec![0; entry.param_bytes()];
        for (param, arg) in entry.params().iter().zip(&self.0) {
            assert_eq!(param.size, arg.len(), "the size of a parameter of {name}");
            out[param.offset..param.offset + param.size].copy_from_slice(arg);
        }
        out
    }
}

/// `Walk` of `prelude.cuh`: rows along the last dim of operands with these strides.
pub(crate) fn walk(shape: &[usize], strides: &[&[usize]]) -> Args {
    let (len, outer) = shape.split_last().expect("a dim");
    let count = |n: usize| u32::try_from(n).expect("a small number");
    let mut dims: Vec<u32> = outer.iter().rev().map(|&n| count(n)).collect();
    let ndim = dims.len();
    dims.resize(5, 1);
    let mut args = Args::default()
        .u64(*len as u64)
        .u32(count(outer.iter().product()))
        .u32(count(ndim));
    for n in dims {
        args = args.u32(n);
    }
    args = args.u32(0);
    for strides in strides {
        let outer = strides[..ndim].iter().rev().map(|&s| s as u64);
        for stride in outer.chain(std::iter::repeat(0)).take(5) {
            args = args.u64(stride);
        }
    }
    Args::default().of(args)
}

/// The parameters of an `OPERAND` of `prelude.cuh`: its address, elements from row to row, and its type beside that of the
/// kernel's data.
pub(crate) fn operand(address: u64, stride: usize, dtype: DType, data: DType) -> Args {
    Args::default()
        .u64(address)
        .u64(stride as u64)
        .u32(kind(dtype, data))
}

/// How a kernel for `data` names this type.
pub(crate) fn kind(dtype: DType, data: DType) -> u32 {
    match dtype {
        DType::F32 => 1,
        same => {
            assert_eq!(same, data, "the host converts other types");
            2
        }
    }
}

/// An operand that is left out.
pub(crate) fn absent() -> Args {
    Args::default().u64(0).u64(0).u32(0)
}

/// The numbers of some bytes.
pub(crate) fn numbers(bytes: &[u8], dtype: DType) -> Vec<f64> {
    let each = bytes.chunks_exact(dtype.size());
    each.map(|b| match dtype {
        DType::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::BF16 => f64::from(bf16::from_le_bytes([b[0], b[1]])),
        DType::F16 => f64::from(f16::from_le_bytes([b[0], b[1]])),
        DType::U8 => f64::from(b[0]),
        DType::U32 => f64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        other => unreachable!("no kernel stores {other}"),
    })
    .collect()
}

/// A small generator: tests draw the same numbers everywhere.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    /// Numbers between −2 and 2.
    pub(crate) fn tensor(&mut self, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let mut one = || self.below(1 << 16) as f32 / f32::from(1u16 << 14) - 2.0;
        let values: Vec<f32> = (0..shape.numel()).map(|_| one()).collect();
        Tensor::from_slice(&values, shape, &Device::cpu())
            .and_then(|x| x.to_dtype(dtype))
            .expect("a tensor")
    }
}
