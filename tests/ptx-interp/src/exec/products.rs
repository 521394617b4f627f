//! `mma.sync`, and how matrices lie in registers. Sums are f32, k after k; a GPU adds in another order.

use crate::exec::block::Block;
use crate::ir::{MmaShape, Operand, Reg};
use crate::scalar::{Bf16, F16, Narrow, Rounding};
use crate::types::Type;

/// The value of an element of a matrix.
pub(super) fn element(ty: Type, bits: u64) -> f32 {
    match ty {
        Type::F16 => F16::widen(bits as u16),
        Type::Bf16 => Bf16::widen(bits as u16),
        // The low 13 bits of a tf32 are ignored.
        _ => f32::from_bits(bits as u32 & !0x1fff),
    }
}

/// `d = a b + c` with rows of `a` and columns of `b` contiguous.
pub(super) fn multiply(k: usize, columns: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    for (row, sums) in a.chunks_exact(k).zip(c.chunks_exact_mut(columns)) {
        for (i, a) in row.iter().enumerate() {
            for (sum, b) in sums.iter_mut().zip(&b[i * columns..]) {
                *sum += a * b;
            }
        }
    }
}

/// Reads a register of `a` of 16 rows: puts its values into `out`, which has `k` columns.
pub(super) fn spread_a(ty: Type, k: usize, register: usize, values: &[u64; 32], out: &mut [f32]) {
    for (lane, value) in values.iter().enumerate() {
        let row = lane / 4 + (register % 2) * 8;
        if ty == Type::Tf32 {
            out[row * k + lane % 4 + register / 2 * 4] = element(ty, *value);
        } else {
            let at = row * k + 2 * (lane % 4) + register / 2 * 8;
            out[at] = element(ty, *value);
            out[at + 1] = element(ty, value >> 16);
        }
    }
}

/// Reads a register of `b` of 8 columns.
fn spread_b(ty: Type, register: usize, values: &[u64; 32], out: &mut [f32]) {
    for (lane, value) in values.iter().enumerate() {
        let column = lane / 4;
        if ty == Type::Tf32 {
            out[(lane % 4 + register * 4) * 8 + column] = element(ty, *value);
        } else {
            let k = 2 * (lane % 4) + register * 8;
            out[k * 8 + column] = element(ty, *value);
            out[(k + 1) * 8 + column] = element(ty, value >> 16);
        }
    }
}

/// The place of a lane's value in 16 rows: `register` counts f32 accumulators.
fn place(lane: usize, register: usize, columns: usize) -> usize {
    let row = lane / 4 + (register / 2 % 2) * 8;
    row * columns + register / 4 * 8 + 2 * (lane % 4) + register % 2
}

/// Reads the accumulators of a warp: 16 rows.
pub(super) fn gather(ty: Type, columns: usize, registers: &[[u64; 32]], out: &mut [f32]) {
    for (i, values) in registers.iter().enumerate() {
        for (lane, value) in values.iter().enumerate() {
            if ty == Type::F16 {
                out[place(lane, 2 * i, columns)] = element(ty, *value);
                out[place(lane, 2 * i + 1, columns)] = element(ty, value >> 16);
            } else {
                out[place(lane, i, columns)] = f32::from_bits(*value as u32);
            }
        }
    }
}

/// The value of one accumulator register in all lanes.
pub(super) fn scatter(ty: Type, columns: usize, register: usize, sums: &[f32]) -> [u64; 32] {
    let half = |x: f32| u64::from(F16::narrow(x.into(), 0.0, Rounding::Nearest));
    std::array::from_fn(|lane| {
        if ty == Type::F16 {
            let [low, high] = [0, 1].map(|i| half(sums[place(lane, 2 * register + i, columns)]));
            low | high << 16
        } else {
            u64::from(sums[place(lane, register, columns)].to_bits())
        }
    })
}

/// The operands of an `mma.sync`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors<'l> {
    pub(super) a: &'l [Operand],
    pub(super) b: &'l [Operand],
    pub(super) c: &'l [Operand],
}

impl Block<'_> {
    pub(super) fn mma(&mut self, w: usize, shape: MmaShape, d: &[Reg], factors: Factors<'_>) {
        let MmaShape {
            k,
            element,
            accumulator,
        } = shape;
        let (mut a, mut b, mut sums) = ([0.0; 256], [0.0; 128], [0.0; 128]);
        for (i, operand) in factors.a.iter().enumerate() {
            spread_a(element, k, i, &self.fetch(w, *operand), &mut a);
        }
        for (i, operand) in factors.b.iter().enumerate() {
            spread_b(element, i, &self.fetch(w, *operand), &mut b);
        }
        let mut c = [[0; 32]; 4];
        for (values, operand) in c.iter_mut().zip(factors.c) {
            *values = self.fetch(w, *operand);
        }
        gather(accumulator, 8, &c[..factors.c.len()], &mut sums);
        multiply(k, 8, &a[..16 * k], &b, &mut sums);
        for (i, reg) in d.iter().enumerate() {
            self.put(w, u32::MAX, *reg, &scatter(accumulator, 8, i, &sums));
        }
    }
}
