//! Many copies in one launch: `batch.cu`.

use std::sync::LazyLock;
use xdit_kernels::DType;

use crate::{
    case::{Case, Kernels, assert_found, module},
    support::{Args, Draw, Memory, Strided},
};

pub(crate) const BATCH: &str = include_str!("../../xdit-kernels/src/layout/batch.sm_80.ptx");

static MODULE: LazyLock<Kernels> = LazyLock::new(|| module(BATCH));

/// A copy of x to what lies like `out`, of one shape of four dims at most, by words of so many elements.
pub(crate) struct Copied {
    x: Strided,
    out: Strided,
    word: usize,
}

impl Copied {
    fn of(
        draw: &mut Draw,
        dtype: DType,
        shape: &[usize],
        margins: [usize; 2],
        word: usize,
    ) -> Self {
        let [x, out] = margins.map(|margin| Strided::random(draw, dtype, shape, margin));
        Self { x, out, word }
    }
}

/// A launch of all of them, as boxes of a kernel that takes `most`.
pub(crate) fn together(copies: &[Copied], most: usize) -> Case {
    let mut memory = Memory::default();
    let (mut boxes, mut first_block) = (Args::default(), 0);
    let mut outputs = Vec::new();
    for Copied { x, out, word } in copies {
        let (view, size) = (x.view(), x.whole.dtype().size());
        let last = view.ndim() - 1;
        let (from, to) = (memory.put(x), memory.output(out));
        outputs.push((to, out, view.to_tensor().unwrap()));
        let dims: Vec<usize> = { view.shape().iter().enumerate() }
            .map(|(d, n)| if d == last { n / word } else { *n })
            .collect();
        let steps = |strides: Vec<usize>| -> Vec<usize> {
            let steps = strides.iter().enumerate();
            steps
                .map(|(d, s)| if d == last { *s } else { s / word })
                .collect()
        };
        boxes = boxes.u64(from).u64(to);
        for (of, rest) in [
            (&dims, 1),
            (&steps(x.strides()), 0),
            (&steps(out.strides()), 0),
        ] {
            let inner_first = of.iter().rev().map(|&n| n as u32);
            for n in inner_first.chain(std::iter::repeat(rest)).take(4) {
                boxes = boxes.u32(n);
            }
        }
        boxes = boxes.u32(first_block).u32((word * size) as u32);
        first_block += dims.iter().product::<usize>().div_ceil(1024) as u32;
    }
    for _ in copies.len()..most {
        for _ in 0..9 {
            boxes = boxes.u64(u64::MAX);
        }
    }
    let args = Args::default().of(boxes.u32(copies.len() as u32).u32(0));
    let case = Case::new(format!("copy_boxes_{most}"), memory, args)
        .grid([first_block, 1, 1], [256, 1, 1]);
    let expect =
        |case: Case, (to, out, value): (u64, &Strided, _)| case.expect(to, out, value, 0.0);
    outputs.into_iter().fold(case, expect)
}

/// Words of every size, dims of every number, rows with a step, and boxes of one block and of several.
pub(crate) fn copies() -> Vec<Copied> {
    let draw = &mut Draw(3);
    let turned = Copied {
        x: Strided::random(draw, DType::F32, &[5, 3], 0).permuted(&[1, 0]),
        out: Strided::random(draw, DType::F32, &[3, 5], 2),
        word: 1,
    };
    vec![
        Copied::of(draw, DType::BF16, &[2, 3, 2, 16], [16, 32], 8),
        turned,
        Copied::of(draw, DType::BF16, &[2, 5, 3], [3, 1], 1),
        Copied::of(draw, DType::F32, &[3, 411], [0, 1], 1),
        Copied::of(draw, DType::F16, &[7, 12], [8, 16], 4),
        Copied::of(draw, DType::F16, &[2, 2, 2, 6], [4, 8], 2),
        Copied::of(draw, DType::F32, &[1030], [0, 0], 1),
    ]
}

#[test]
fn boxes_of_any_layout_are_exact() {
    together(&copies(), 8).check(&MODULE);
    together(&copies()[..1], 8).check(&MODULE);
    let many: Vec<Copied> = (0..8).flat_map(|_| copies()).collect();
    together(&many, 56).check_under(&MODULE, &MODULE.schedules()[..1]);
}

#[test]
fn seeded_bugs_are_found() {
    let case = together(&copies(), 8);
    assert_found(BATCH, &case, "div.u32", "rem.u32");
    assert_found(BATCH, &case, "setp.ge.u32", "setp.gt.u32");
}
