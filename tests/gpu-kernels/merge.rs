//! The merge of two partial attentions.

use std::sync::LazyLock;
use xdit_kernels::{DType, Device, Tensor, attention::AttnOut, merge::merge};

use crate::{
    case::{Case, Kernels, assert_found, module},
    support::{Args, Draw, FLOATS, Memory, Strided},
};

const PTX: &str = include_str!("../../xdit-kernels/src/merge/merge.sm_80.ptx");

/// Exponentials, quotients and two products, each good to 2 units in the last place of f32.
const TOLERANCE: f32 = 5e-7;

static MODULE: LazyLock<Kernels> = LazyLock::new(|| module(PTX));

/// Log-sum-exps, of which every `step`th is −∞.
fn lse(draw: &mut Draw, shape: [usize; 3], step: usize) -> Tensor {
    let values = draw.tensor(DType::F32, shape);
    let mut values = values.to_vec_blocking::<f32>().expect("f32");
    for value in values.iter_mut().step_by(step) {
        *value = f32::NEG_INFINITY;
    }
    Tensor::from_slice(&values, shape, &Device::cpu()).expect("a tensor")
}

/// `MergeCall` of `merge.cu`; rows of the first part and of the result have gaps between them. In place, the result takes the
/// place of the first part.
fn case(dtype: DType, other: DType, [b, l, h, d]: [usize; 4], in_place: bool) -> Case {
    let mut draw = Draw(17);
    let lse_shape = [b, h, l];
    let first = Strided::random(&mut draw, dtype, &[b, l, h, d], 4);
    let second = Strided::random(&mut draw, other, &[b, l, h, d], 0);
    // Some rows that only one part has seen, and some that neither has.
    let lses = [2, 3].map(|step| Strided::of(lse(&mut draw, lse_shape, step)));
    let out = if in_place {
        first.clone()
    } else {
        Strided::random(&mut draw, dtype, &[b, l, h, d], 6)
    };
    let whole = |x: &Strided| x.view().to_tensor().expect("a tensor");
    let [a, c] = [(&first, &lses[0]), (&second, &lses[1])].map(|(out, lse)| AttnOut {
        out: whole(out),
        lse: whole(lse),
    });
    let expected = merge(&a, &c).expect("the processor's merge");

    let mut memory = Memory::default();
    let mut args = Args::default();
    let [a_at, c_at] = [&first, &second].map(|part| memory.put(part));
    let [a_lse_at, c_lse_at] = [0, 1].map(|part| memory.put(&lses[part]));
    let (out_at, lse_at) = if in_place {
        (a_at, a_lse_at)
    } else {
        (memory.output(&out), memory.output(&lses[0]))
    };
    let mut params = Args::default();
    for address in [a_at, c_at, out_at, a_lse_at, c_lse_at, lse_at] {
        params = params.u64(address);
    }
    let strides = [&first, &second, &out].map(|x| x.strides()[..3].to_vec());
    let lse_strides = [0; 3].map(|_| lses[0].strides());
    for stride in strides.iter().chain(&lse_strides).flatten() {
        args = args.u64(*stride as u64);
    }
    let rows = b * l * h;
    for size in [rows, l, h, d] {
        args = args.u32(size as u32);
    }
    args = args.u32(u32::from(other != dtype)).u32(0);
    Case::new(format!("merge_{dtype}"), memory, params.of(args))
        .grid([rows.div_ceil(4) as u32, 1, 1], [128, 1, 1])
        .named(format!("{other} {:?}", [b, l, h, d]))
        .expect(out_at, &out, expected.out, TOLERANCE)
        .expect(lse_at, &lses[0], expected.lse, TOLERANCE)
}

#[test]
fn merges_like_the_processor() {
    for dtype in FLOATS {
        for (other, shape) in [
            (dtype, [2, 5, 3, 40]),
            (DType::F32, [1, 7, 2, 33]),
            (DType::F32, [1, 1, 1, 1]),
        ] {
            for in_place in [false, true] {
                case(dtype, other, shape, in_place).check(&MODULE);
            }
        }
    }
}

#[test]
fn seeded_bugs_are_found() {
    let case = case(DType::BF16, DType::F32, [2, 5, 3, 40], true);
    for (from, to) in [
        ("bar.warp.sync", "// "),
        ("setp.ge.u32", "setp.gt.u32"),
        ("ex2.approx", "rcp.approx"),
        ("0fFF800000", "0f00000000"),
        ("div.u32", "rem.u32"),
    ] {
        assert_found(PTX, &case, from, to);
    }
}
