//! Launches of `batch.cu`: many copies at once.

use super::{cuda, plan::CopyPlan};
use crate::{
    Result, View, ViewMut,
    cuda::{Args, CudaQueue, KernelParam, LaunchShape, PtxModule},
};

static MODULE: PtxModule = PtxModule {
    name: "batch",
    sm_80: include_str!("batch.sm_80.ptx"),
    sm_90a: None,
};

/// `BOX_DIMS` of `batch.cu`.
const BOX_DIMS: usize = 4;

/// Words of a block.
const BLOCK_WORDS: usize = 1024;
const THREADS: u32 = 256;

/// Boxes of a launch, by value: the parameters of a kernel are 4 KB at most.
const FEW: usize = 8;
const MANY: usize = 56;

/// `Box` of `batch.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct CopyBox {
    x: u64,
    out: u64,
    dims: [u32; BOX_DIMS],
    x_strides: [u32; BOX_DIMS],
    out_strides: [u32; BOX_DIMS],
    first_block: u32,
    word: u32,
}

impl CopyBox {
    const NONE: Self = Self {
        x: 0,
        out: 0,
        dims: [0; BOX_DIMS],
        x_strides: [0; BOX_DIMS],
        out_strides: [0; BOX_DIMS],
        first_block: 0,
        word: 0,
    };

    /// A copy of elements of `size` bytes between these addresses, in the widest words that fit. `None` if another kernel must do it:
    /// it has more dims, or sizes that the box does not count, or it is a transposition.
    fn of(plan: &CopyPlan, x: u64, out: u64, size: usize) -> Option<Self> {
        if plan.turned(size).is_some() {
            return None;
        }
        let (last, outer) = (plan.last(), plan.outer());
        let adjacent = last.x == 1 && last.out == 1;
        let fits = |word: usize| {
            let whole = |n: usize| n.checked_mul(size).is_some_and(|n| n.is_multiple_of(word));
            (x | out).is_multiple_of(word as u64)
                && whole(last.n)
                && outer.iter().all(|dim| whole(dim.x) && whole(dim.out))
        };
        let wider = [16, 8, 4, 2].into_iter().filter(|&word| word > size);
        let word = { wider }
            .find(|&word| adjacent && fits(word))
            .unwrap_or(size);
        let (shape, x_steps, out_steps) = plan.in_words(word / size);
        let mut of = Self {
            x,
            out,
            dims: [1; BOX_DIMS],
            word: word as u32,
            ..Self::NONE
        };
        if shape.len() > BOX_DIMS {
            return None;
        }
        let dims = shape.iter().zip(&x_steps).zip(&out_steps).rev();
        for (at, ((&n, &x), &out)) in dims.enumerate() {
            of.dims[at] = u32::try_from(n).ok()?;
            of.x_strides[at] = u32::try_from(x).ok()?;
            of.out_strides[at] = u32::try_from(out).ok()?;
        }
        // A thread counts its words, also those behind the last, in 32 bits.
        let words = shape
            .iter()
            .try_fold(1usize, |all, &n| all.checked_mul(n))?;
        (words <= 1 << 31).then_some(of)
    }

    fn blocks(&self) -> usize {
        // No more than 2^31 words.
        let words: usize = self.dims.iter().map(|&n| n as usize).product();
        words.div_ceil(BLOCK_WORDS)
    }
}

/// `Boxes` of `batch.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct CopyBoxes<const N: usize> {
    of: [CopyBox; N],
    count: u32,
    unused: u32,
}

// SAFETY: `#[repr(C)]` with the fields of `Boxes`, without padding. `launch` tells the launch of its addresses.
unsafe impl<const N: usize> KernelParam for CopyBoxes<N> {}

/// Shapes and devices were checked by the caller.
pub(super) fn copy_each(op: &'static str, xs: &[View<'_>], outs: Vec<ViewMut<'_>>) -> Result<()> {
    let mut boxes: Vec<CopyBox> = Vec::new();
    let mut queue: Option<&CudaQueue> = None;
    let mut first = None;
    for (x, mut out) in xs.iter().zip(outs) {
        if x.numel() == 0 && x.dtype() == out.dtype() {
            continue;
        }
        // Each output is written in the order of its own queue.
        let own = out.device().expect_cuda();
        let same = queue.is_none_or(|queue| std::ptr::eq(queue, own));
        let plan = (x.dtype() == out.dtype() && same)
            .then(|| CopyPlan::new(x.shape(), x.strides(), out.strides()));
        let addresses = [x.ptr().addr() as u64, out.ptr().addr() as u64];
        let planned =
            plan.and_then(|plan| CopyBox::of(&plan, addresses[0], addresses[1], x.dtype().size()));
        match planned {
            None => cuda::copy(op, *x, out)?,
            Some(planned) => {
                queue = Some(own);
                boxes.push(planned);
                first.get_or_insert((*x, out));
            }
        }
    }
    let (Some(queue), Some((x, out))) = (queue, first) else {
        return Ok(());
    };
    if boxes.len() == 1 {
        return cuda::copy(op, x, out);
    }
    for chunk in boxes.chunks(MANY) {
        // SAFETY: each box is the elements of a view and of an output that is exclusively borrowed, of one shape.
        unsafe {
            match chunk.len() {
                ..=FEW => launch::<FEW>(op, queue, "copy_boxes_8", chunk)?,
                _ => launch::<MANY>(op, queue, "copy_boxes_56", chunk)?,
            }
        }
    }
    Ok(())
}

/// Copies N boxes at most.
///
/// # Safety
/// As [`CudaQueue::launch`] demands of the boxes' memory.
unsafe fn launch<const N: usize>(
    op: &'static str,
    queue: &CudaQueue,
    kernel: &'static str,
    boxes: &[CopyBox],
) -> Result<()> {
    let mut all = CopyBoxes {
        of: [CopyBox::NONE; N],
        count: boxes.len() as u32,
        unused: 0,
    };
    let mut blocks = 0;
    let mut args = Args::new();
    for (to, from) in all.of.iter_mut().zip(boxes) {
        *to = CopyBox {
            // Fewer than 2^31 / 1024 for each box.
            first_block: blocks as u32,
            ..*from
        };
        blocks += from.blocks();
        for address in [from.x, from.out] {
            args.uses(std::ptr::without_provenance(address as usize));
        }
    }
    args.push(all);
    let shape = LaunchShape::rows(blocks as u32, THREADS);
    // SAFETY: the caller's promise. The kernel has this parameter, and reads and writes the words of the boxes.
    unsafe { queue.launch(op, &MODULE, kernel, shape, &args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(shape: &[usize], x: &[usize], out: &[usize], at: u64, size: usize) -> Option<CopyBox> {
        CopyBox::of(&CopyPlan::new(shape, x, out), at, 4096, size)
    }

    #[test]
    fn boxes_have_the_widest_words() {
        // Heads 1 and 2 of 4, of 8 numbers each, of 3 rows, to a message.
        let planned = of(&[3, 2, 8], &[32, 8, 1], &[16, 8, 1], 4096 + 16, 2).unwrap();
        assert_eq!((planned.word, planned.dims), (16, [2, 3, 1, 1]));
        assert_eq!((planned.x_strides[1], planned.out_strides[1]), (4, 2));
        assert_eq!(planned.blocks(), 1);
        let odd = of(&[3, 2, 8], &[32, 8, 1], &[16, 8, 1], 4096 + 2, 2).unwrap();
        assert_eq!((odd.word, odd.dims), (2, [16, 3, 1, 1]));
        // Rows that are not adjacent.
        let columns = of(&[3, 2], &[2, 6], &[2, 1], 4096, 4).unwrap();
        assert_eq!((columns.word, columns.dims), (4, [2, 3, 1, 1]));
        assert_eq!((columns.x_strides[0], columns.out_strides[0]), (6, 1));
    }

    #[test]
    fn copies_that_do_not_fit_a_box_are_left_to_other_kernels() {
        // A transposition.
        assert!(of(&[32, 32], &[1, 32], &[32, 1], 4096, 4).is_none());
        // Five dims that do not merge.
        let (shape, x) = ([2, 2, 2, 2, 3], [256, 64, 18, 8, 2]);
        assert!(of(&shape, &x, &[24, 12, 6, 3, 1], 4096, 4).is_none());
        // More words than 2^31, or a stride of more than 2^32 words.
        assert!(of(&[1 << 33], &[1], &[1], 4096, 2).is_some());
        assert!(of(&[(1 << 33) + 1], &[1], &[1], 4096, 2).is_none());
        assert!(of(&[2, 4], &[1 << 40, 1], &[4, 1], 4096, 2).is_none());
        assert!(of(&[1 << 60, 8], &[8, 1], &[8, 1], 4096, 2).is_none());
    }

    #[test]
    fn the_parameters_of_a_launch_are_less_than_4_kb() {
        assert_eq!(size_of::<CopyBox>(), 72);
        assert_eq!(size_of::<CopyBoxes<MANY>>(), 56 * 72 + 8);
        assert!(size_of::<CopyBoxes<MANY>>() <= 4096);
    }
}
