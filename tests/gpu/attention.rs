//! Attention of every head dim that has a kernel, with each kind of mask, and merges of partial results.

use crate::support::{FLOATS, Pair, Tolerance, scaled, sizes, tensor};
use xdit_kernels::{
    DType, Device, Result, Tensor, TensorMut,
    attention::{Attention, AttnInput, AttnOut, Flash, Mask, flash_accumulate_into, flash_into},
    layout::copy_each,
    merge::{merge, merge_in_place},
};

/// Queries, keys, heads of the queries for each head of the keys, head dim.
const SMALL: [[usize; 4]; 9] = [
    [33, 33, 1, 32],
    [17, 66, 1, 64],
    [9, 35, 1, 80],
    [66, 21, 1, 88],
    [5, 67, 2, 128],
    // Other head dims, and nothing to see.
    [7, 9, 1, 20],
    [3, 40, 2, 140],
    [6, 0, 1, 64],
    [1, 1, 1, 128],
];
const LARGE: [[usize; 4]; 4] = [
    [1111, 1111, 2, 128],
    [513, 2050, 1, 64],
    [1000, 333, 1, 88],
    [130, 700, 1, 140],
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    All,
    Causal,
    KeyMask,
    Bias,
    /// First one half of the keys, then the other.
    Parts,
}

/// Weights of bf16 and f16 are rounded before they multiply the values, and the result once more; in f32 only the order of
/// sums differs.
fn tolerance(dtype: DType) -> Tolerance {
    Tolerance {
        of_greatest: 1e-5 + 2.0 * Tolerance::step(dtype),
        neighbours: 0.0,
    }
}

fn attend(
    [lq, lk, group, d]: [usize; 4],
    seen: Seen,
    dtype: DType,
    device: &Device,
) -> Result<AttnOut> {
    // Keys and values are two of three parts of a joint tensor. Scores are a few units, so that many keys count.
    let q = scaled(&[2, lq, 2 * group, d], dtype, 1, 1.0, device);
    let kv = scaled(&[2, lk, 3, 2, d], dtype, 2, 1.0, device);
    let (k, v) = (kv.view().select(2, 1)?, kv.view().select(2, 2)?);
    let hidden: Vec<u8> = (0..2 * lk).map(|i| u8::from(i % 5 != 2)).collect();
    let hidden = Tensor::from_slice(&hidden, [2, lk], device)?;
    let bias = tensor(&[1, 2 * group, lq, lk], DType::F32, 3, device);
    let mask = match seen {
        Seen::All | Seen::Parts => Mask::default(),
        Seen::Causal => Mask::default().with_causal(true),
        Seen::KeyMask => Mask::default().with_key_mask(Some(hidden.view())),
        Seen::Bias => Mask::default().with_bias(Some(bias.view())),
    };
    let input = AttnInput::new(&q, k, v).with_mask(mask);
    if seen == Seen::Parts {
        let mut out = TensorMut::zeros(q.shape(), DType::F32, device)?;
        let mut lse = TensorMut::zeros([2, 2 * group, lq], DType::F32, device)?;
        let half = lk.div_ceil(2);
        let part = |at, len| {
            Ok::<_, xdit_kernels::Error>(AttnInput::new(
                &q,
                k.narrow(1, at, len)?,
                v.narrow(1, at, len)?,
            ))
        };
        flash_into(&part(0, half)?, out.view_mut(), lse.view_mut())?;
        flash_accumulate_into(&part(half, lk - half)?, out.view_mut(), lse.view_mut())?;
        let (out, lse) = (out.freeze(), lse.freeze());
        return Ok(AttnOut { out, lse });
    }
    if seen != Seen::KeyMask {
        return Flash.attend(&input);
    }
    // Behind rows of another stream.
    let mut out = TensorMut::zeros([2, lq + 1, 2 * group, d], dtype, device)?;
    let mut lse = TensorMut::zeros([2, 2 * group, lq], DType::F32, device)?;
    flash_into(&input, out.view_mut().narrow(1, 1, lq)?, lse.view_mut())?;
    Ok(AttnOut {
        out: out.freeze(),
        lse: lse.freeze(),
    })
}

#[test]
#[ignore = "needs a GPU"]
fn attention() {
    let pair = Pair::new();
    for dtype in FLOATS {
        for shape in sizes(&SMALL, &LARGE) {
            for seen in [
                Seen::All,
                Seen::Causal,
                Seen::KeyMask,
                Seen::Bias,
                Seen::Parts,
            ] {
                let what = format!("{shape:?} {seen:?} {dtype}");
                let [got, want] = [&pair.gpu, &pair.cpu]
                    .map(|device| attend(shape, seen, dtype, device).unwrap());
                tolerance(dtype).assert(&what, &got.out, &want.out);
                // Scores are sums in f32. The exponentials are good to 5e-7 in f32 and to 9e-5 in 16 bits, on either side.
                let lse = Tolerance {
                    of_greatest: if dtype == DType::F32 { 1e-5 } else { 2e-4 },
                    neighbours: 0.0,
                };
                lse.assert(&format!("{what}, lse"), &got.lse, &want.lse);
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn merges() {
    let pair = Pair::new();
    for first in FLOATS {
        for second in [first, DType::F32, DType::BF16] {
            for [l, h, d] in sizes(&[[5, 3, 33], [9, 2, 64]], &[[1111, 24, 128]]) {
                let merged = |device: &Device| {
                    let part = |seed: usize, dtype: DType| {
                        let lse = scaled(&[2, h, l], DType::F32, seed + 2, 2.0, device);
                        let mut lse: Vec<f32> = lse.to_vec_blocking()?;
                        // Rows that a part has not seen, and one that none has.
                        lse.iter_mut()
                            .step_by(seed + 1)
                            .for_each(|x| *x = f32::NEG_INFINITY);
                        Ok::<_, xdit_kernels::Error>(AttnOut {
                            out: scaled(&[2, l, h, d], dtype, seed, 2.0, device),
                            lse: Tensor::from_slice(&lse, [2, h, l], device)?,
                        })
                    };
                    let (a, b) = (part(1, first)?, part(2, second)?);
                    // Into a new result, and into a copy of the first part.
                    let new = |x: &Tensor| TensorMut::zeros(x.shape(), x.dtype(), device);
                    let (mut out, mut lse) = (new(&a.out)?, new(&a.lse)?);
                    copy_each(vec![
                        (a.out.view(), out.view_mut()),
                        (a.lse.view(), lse.view_mut()),
                    ])?;
                    merge_in_place(out.view_mut(), lse.view_mut(), &b)?;
                    let in_place = AttnOut {
                        out: out.freeze(),
                        lse: lse.freeze(),
                    };
                    Ok::<_, xdit_kernels::Error>([merge(&a, &b)?, in_place])
                };
                let [got, want] = [&pair.gpu, &pair.cpu].map(|device| merged(device).unwrap());
                let what = format!("merge of {first} and {second}");
                for (got, want) in got.iter().zip(&want) {
                    assert_eq!(got.out.dtype(), first);
                    Tolerance::ROUNDING.assert(&what, &got.out, &want.out);
                    Tolerance::ROUNDING.assert(&what, &got.lse, &want.lse);
                }
            }
        }
    }
}
