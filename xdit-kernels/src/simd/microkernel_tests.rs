//! The tile against sums in f64, for every tier, number of rows and form of A and B.

use super::microkernel::*;
use crate::Tier;
use half::{bf16, f16};

const STEPS: [usize; 4] = [0, 1, 2, 37];

/// Small whole numbers and halves: exact in every dtype, and their products and sums in f32 too, so results are equal
/// to the oracle whatever the order of the sum.
fn value(i: usize) -> f32 {
    ((i * 37 + 11) % 29) as f32 * 0.5 - 7.0
}

/// C of `rows × nr` as f64 sums; A and B given by k.
fn oracle(
    rows: usize,
    nr: usize,
    k: usize,
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    start: f32,
) -> Vec<f32> {
    let mut c = Vec::new();
    for i in 0..rows {
        for j in 0..nr {
            let sum: f64 = (0..k)
                .map(|k| f64::from(a(i, k)) * f64::from(b(k, j)))
                .sum();
            c.push((sum + f64::from(start)) as f32);
        }
    }
    c
}

fn pair(low: f32, high: f32) -> Pair {
    u32::from(bf16::from_f32(low).to_bits()) | (u32::from(bf16::from_f32(high).to_bits()) << 16)
}

/// Row (or column) and word along k of element `at` of a panel of `n` rows whose groups have `group` words.
fn place(at: usize, n: usize, group: usize) -> (usize, usize) {
    (at / group % n, at / (n * group) * group + at % group)
}

/// Runs a kernel for each number of rows and steps, with and without adding; `ks` is the number of k in a step of B,
/// and A's word at (row, word along k) comes from `a_word`. Groups of A and B have these numbers of words.
fn check<A: Copy, B: Copy>(
    what: &str,
    kernel: Kernel<A, B>,
    ks: usize,
    a_words_per_step: usize,
    [a_group, b_group]: [usize; 2],
    a_word: impl Fn(usize, usize) -> A,
    b_word: impl Fn(usize, usize) -> B,
) {
    for rows in 1..=kernel.mr {
        for steps in STEPS {
            let steps = steps * b_group;
            let words = steps * a_words_per_step;
            let a: Vec<A> = (0..words * kernel.mr)
                .map(|i| {
                    let (row, word) = place(i, kernel.mr, a_group);
                    a_word(row, word)
                })
                .collect();
            let b: Vec<B> = (0..steps * kernel.nr)
                .map(|i| {
                    let (column, word) = place(i, kernel.nr, b_group);
                    b_word(word, column)
                })
                .collect();
            let bias = vec![0.5f32; kernel.nr];
            for add in [false, true] {
                let c_row = kernel.nr + 3;
                let mut c = vec![2.5f32; rows * c_row];
                let to = c.as_mut_ptr();
                let sums = Sums {
                    from: if add { to } else { bias.as_ptr() },
                    from_row: if add { c_row } else { 0 },
                    to: to.cast(),
                    to_row: c_row,
                    dtype: crate::dtype::FloatType::F32,
                };
                // SAFETY: a, b and c hold every element that rows and steps reach; the tier is available.
                unsafe { kernel.tile(rows)(steps, a.as_ptr(), b.as_ptr(), &sums) };
                let want = oracle(
                    rows,
                    kernel.nr,
                    steps * ks,
                    |i, k| value(i * 101 + k),
                    |k, j| value(k * 53 + j * 7 + 3),
                    if add { 2.5 } else { 0.5 },
                );
                for i in 0..rows {
                    let row = &c[i * c_row..];
                    assert_eq!(
                        row[..kernel.nr],
                        want[i * kernel.nr..][..kernel.nr],
                        "{what}: row {i} of {rows}, {steps} steps, add {add}"
                    );
                    assert_eq!(
                        row[kernel.nr..c_row],
                        [2.5; 3],
                        "{what}: wrote beyond its columns"
                    );
                }
            }
        }
    }
}

#[test]
fn tiles_equal_sums() {
    let a = |i, k| value(i * 101 + k);
    let b = |k: usize, j: usize| value(k * 53 + j * 7 + 3);
    let a_pair = |i, w: usize| pair(a(i, 2 * w), a(i, 2 * w + 1));
    let b_pair = |w: usize, j| pair(b(2 * w, j), b(2 * w + 1, j));
    for tier in Tier::available() {
        let name = |form: &str| format!("{tier} {form}");
        let group = pair_group(tier);
        check(&name("packed"), packed(tier), 1, 1, [1, 1], a, b);
        let b_f16 = |k, j| f16::from_f32(b(k, j));
        check(&name("f16"), packed_f16(tier), 1, 1, [1, 1], a, b_f16);
        let pairs = packed_pairs(tier);
        check(&name("pairs"), pairs, 2, 2, [1, group], a, b_pair);
        let dots = packed_dots(tier);
        check(&name("dots"), dots, 2, 1, [group; 2], a_pair, b_pair);
    }
}
