//! Native versions of plain kernels: they take a fraction of the time in which the interpreter runs the PTX.
//!
//! A native version makes the loads and stores of every thread, of the same bytes as the PTX, and rounds as the PTX does. It runs
//! only launches in which nothing is wrong. It declines (`None`) where an address is not aligned, where memory refuses a read or
//! a write, where a thread writes bytes that another access of the launch uses, where a number is NaN, and where the shape of the
//! launch is not one that the product uses. The interpreter then runs the launch from the start, and its report is the usual one.
//! `tests/gpu-kernels/native.rs` runs every kernel of the table both ways.

mod call;
mod floats;
mod trial;

use ptx_interp::{DeviceMemory, Entry, Launch};

use NativeKernel::{Cast, Combine, CopyBoxes, CopyWords, Gate, LayerNorm, RmsNorm};
use call::{KernelRows, NativeCall};
use floats::Float::{self, Bf16, F16, F32};
use trial::Trial;

/// What a native version computes.
#[derive(Clone, Copy, Debug)]
enum NativeKernel {
    Combine(Float),
    Gate(Float),
    LayerNorm(Float),
    RmsNorm(Float),
    Cast(Float, Float),
    /// Of words of so many bytes.
    CopyWords(usize),
    /// Of so many boxes at most.
    CopyBoxes(usize),
}

/// The kernels that have a native version.
const TABLE: [(&str, NativeKernel); 25] = [
    ("combine_f32", Combine(F32)),
    ("combine_bf16", Combine(Bf16)),
    ("combine_f16", Combine(F16)),
    ("gate_residual_f32", Gate(F32)),
    ("gate_residual_bf16", Gate(Bf16)),
    ("gate_residual_f16", Gate(F16)),
    ("layer_norm_f32", LayerNorm(F32)),
    ("layer_norm_bf16", LayerNorm(Bf16)),
    ("layer_norm_f16", LayerNorm(F16)),
    ("rms_norm_f32", RmsNorm(F32)),
    ("rms_norm_bf16", RmsNorm(Bf16)),
    ("rms_norm_f16", RmsNorm(F16)),
    ("cast_f32_bf16", Cast(F32, Bf16)),
    ("cast_f32_f16", Cast(F32, F16)),
    ("cast_bf16_f32", Cast(Bf16, F32)),
    ("cast_bf16_f16", Cast(Bf16, F16)),
    ("cast_f16_f32", Cast(F16, F32)),
    ("cast_f16_bf16", Cast(F16, Bf16)),
    ("copy_1", CopyWords(1)),
    ("copy_2", CopyWords(2)),
    ("copy_4", CopyWords(4)),
    ("copy_8", CopyWords(8)),
    ("copy_16", CopyWords(16)),
    ("copy_boxes_8", CopyBoxes(8)),
    ("copy_boxes_56", CopyBoxes(56)),
];

/// The names of the kernels that have a native version.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.0)
}

/// Runs a launch, if its kernel has a native version that does not decline it. Memory is then as the interpreter would leave it. If
/// it does not run, a part of the launch's stores may have been made.
pub fn run(entry: &Entry, launch: &Launch<'_>, memory: &mut dyn DeviceMemory) -> Option<()> {
    let (_, kernel) = TABLE.iter().find(|row| row.0 == entry.name())?;
    let call = NativeCall::new(entry, launch)?;
    let mut trial = Trial::new(memory);
    match *kernel {
        Combine(float) => combine(&call, &mut trial, float)?,
        Gate(float) => gate(&call, &mut trial, float)?,
        LayerNorm(float) => norm(&call, &mut trial, float, true)?,
        RmsNorm(float) => norm(&call, &mut trial, float, false)?,
        Cast(from, to) => cast(&call, &mut trial, from, to)?,
        CopyWords(word) => copy(&call, &mut trial, word)?,
        CopyBoxes(most) => copy_boxes(&call, &mut trial, most)?,
    }
    trial.commit()
}

/// `combine_vector` of elementwise.cu.
fn combine(call: &NativeCall<'_>, trial: &mut Trial<'_>, float: Float) -> Option<()> {
    let walk = call.walk::<3>(10)?;
    let (x, y, out) = (call.u64(1), call.operand(2), call.u64(5));
    let (combine, a, b, aligned) = (call.u32(6), call.f32(7), call.f32(8), call.u32(9) != 0);
    let each = if aligned { float.vector() } else { 1 };
    for (row, first) in call.places(&walk, each)? {
        let at = walk.offsets(row)?;
        let mut u = trial.floats(float, aligned, each, x, at[0].wrapping_add(first))?;
        let v = trial.operand(&y, float, aligned, each, at[1].wrapping_add(first), 0.0)?;
        for (x, y) in u.iter_mut().zip(v).take(each) {
            *x = match combine {
                0 => *x + y,
                1 => *x - y,
                2 => *x * y,
                3 => *x + a * y,
                4 => a * *x + b * y,
                5 => a * *x,
                6 => a * *x + b,
                7 => *x / a,
                _ => {
                    let x = if a > *x { a } else { *x };
                    if x > b { b } else { x }
                }
            };
        }
        trial.store_floats(float, aligned, &u[..each], out, at[2].wrapping_add(first))?;
    }
    Some(())
}

/// `gate_vector` of elementwise.cu.
fn gate(call: &NativeCall<'_>, trial: &mut Trial<'_>, float: Float) -> Option<()> {
    let walk = call.walk::<3>(11)?;
    let (x, gate, rows_each) = (call.operand(1), call.operand(4), call.u32(7));
    let (residual, out, aligned) = (call.u64(8), call.u64(9), call.u32(10) != 0);
    let each = if aligned { float.vector() } else { 1 };
    for (row, first) in call.places(&walk, each)? {
        let at = walk.offsets(row)?;
        let mut u = trial.operand(&x, float, aligned, each, at[0].wrapping_add(first), 0.0)?;
        let v = trial.floats(float, aligned, each, residual, at[1].wrapping_add(first))?;
        let of_row = u64::from(row.checked_div(rows_each)?).wrapping_mul(gate.stride);
        let g = trial.operand(&gate, float, aligned, each, of_row.wrapping_add(first), 0.0)?;
        for (x, (gate, residual)) in u.iter_mut().zip(g.iter().zip(v)).take(each) {
            *x = gate.mul_add(*x, residual);
        }
        trial.store_floats(float, aligned, &u[..each], out, at[2].wrapping_add(first))?;
    }
    Some(())
}

/// `cast` of layout.cu.
fn cast(call: &NativeCall<'_>, trial: &mut Trial<'_>, from: Float, to: Float) -> Option<()> {
    let walk = call.walk::<2>(6)?;
    let (x, out, x_step, out_step) = (call.u64(1), call.u64(2), call.u64(3), call.u64(4));
    let aligned = call.u32(5) != 0;
    let (each, x_step, out_step) = match aligned {
        true => (8, 1, 1),
        false => (1, x_step, out_step),
    };
    for (row, first) in call.places(&walk, each)? {
        let at = walk.offsets(row)?;
        let v = trial.floats(
            from,
            aligned,
            each,
            x,
            at[0].wrapping_add(first.wrapping_mul(x_step)),
        )?;
        trial.store_floats(
            to,
            aligned,
            &v[..each],
            out,
            at[1].wrapping_add(first.wrapping_mul(out_step)),
        )?;
    }
    Some(())
}

/// `copy_word` of layout.cu.
fn copy(call: &NativeCall<'_>, trial: &mut Trial<'_>, word: usize) -> Option<()> {
    let walk = call.walk::<2>(5)?;
    let (x, out, x_step, out_step) = (call.u64(1), call.u64(2), call.u64(3), call.u64(4));
    for (row, first) in call.places(&walk, 1)? {
        let at = walk.offsets(row)?;
        let (from, to) = (
            at[0].wrapping_add(first.wrapping_mul(x_step)),
            at[1].wrapping_add(first.wrapping_mul(out_step)),
        );
        trial.move_word(word, x, from, out, to)?;
    }
    Some(())
}

/// `copy_boxes` of batch.cu. Each box has the addresses of its input and output, sizes of four dims, two strides for each, its first
/// block, and the bytes of a word.
fn copy_boxes(call: &NativeCall<'_>, trial: &mut Trial<'_>, most: usize) -> Option<()> {
    const BOX: usize = 72;
    const THREADS: u32 = 256;
    const EACH: u32 = 4;
    call.has_params(1)?;
    let boxes = call.param(0);
    let count = boxes.u32(most * BOX) as usize;
    if call.block() != [THREADS, 1, 1] || count == 0 || count > most {
        return None;
    }
    let first_block = |index: usize| boxes.u32(index * BOX + 64);
    for block in 0..call.blocks() {
        let (mut low, mut high) = (0, count);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if first_block(middle) <= block {
                low = middle;
            } else {
                high = middle;
            }
        }
        let at = low * BOX;
        let (x, out) = (boxes.u64(at), boxes.u64(at + 8));
        let dims = [0, 1, 2, 3].map(|d| boxes.u32(at + 16 + 4 * d));
        let x_strides = [0, 1, 2, 3].map(|d| u64::from(boxes.u32(at + 32 + 4 * d)));
        let out_strides = [0, 1, 2, 3].map(|d| u64::from(boxes.u32(at + 48 + 4 * d)));
        let word = boxes.u32(at + 68) as usize;
        let total = dims.iter().try_fold(1u32, |n, dim| n.checked_mul(*dim))?;
        let start = block
            .checked_sub(first_block(low))?
            .checked_mul(THREADS * EACH)?;
        for index in start..total.min(start.checked_add(THREADS * EACH)?) {
            let (mut rest, mut from, mut to) = (index, 0u64, 0u64);
            for d in 0..4 {
                let digit = if d == 3 { rest } else { rest % dims[d] };
                from = from.wrapping_add(u64::from(digit) * x_strides[d]);
                to = to.wrapping_add(u64::from(digit) * out_strides[d]);
                rest = if d == 3 { 0 } else { rest / dims[d] };
            }
            trial.move_word(word, x, from, out, to)?;
        }
    }
    Some(())
}

/// `norm_row` of norm.cu: a row for each row of threads.
fn norm(call: &NativeCall<'_>, trial: &mut Trial<'_>, float: Float, layer: bool) -> Option<()> {
    let walk = call.walk::<2>(13)?;
    let (x, out, gain, bias) = (call.u64(1), call.u64(2), call.operand(3), call.operand(6));
    let (rows_each, plus, eps) = (call.u32(9), call.f32(10), call.f32(11));
    let aligned = call.u32(12) != 0;
    let [threads, rows, _] = call.block();
    let (threads, len) = (threads as usize, usize::try_from(walk.len).ok()?);
    let each = if aligned { float.vector() } else { 1 };
    // Rows that share a block are a warp each. Of a row of vectors, a thread keeps two.
    let shared = rows == 1 || threads == 32;
    let whole = len.is_multiple_of(each) && (!aligned || len <= 2 * each * threads);
    if !threads.is_multiple_of(32) || !shared || !whole {
        return None;
    }
    for row in (0..call.blocks().checked_mul(rows)?).take_while(|row| *row < walk.rows) {
        let at = walk.offsets(row)?;
        let mut values = Vec::with_capacity(len);
        for first in (0..len).step_by(each) {
            let v = trial.floats(float, aligned, each, x, at[0].wrapping_add(first as u64))?;
            values.extend_from_slice(&v[..each]);
        }
        let sum = |add: &dyn Fn(f32, f32) -> f32| row_sum(&values, each, threads, add);
        let of_row = u64::from(row.checked_div(rows_each)?);
        let (mut mean, mut off, count) = (0.0, 0.0, walk.len as f32);
        let variance = if layer {
            mean = sum(&|sum, v| sum + v) / count;
            off = sum(&|sum, v| sum + (v - mean)) / count;
            sum(&|sum, v| (v - mean).mul_add(v - mean, sum)) / count - off * off
        } else {
            sum(&|sum, v| v.mul_add(v, sum)) / count
        };
        let scale = 1.0 / (variance + eps).sqrt();
        let offset = -(off * scale);
        for (first, v) in (0..).step_by(each).zip(values.chunks(each)) {
            let of = |operand: &KernelRows| of_row.wrapping_mul(operand.stride).wrapping_add(first);
            let g = trial.operand(&gain, float, aligned, each, of(&gain), 1.0)?;
            let mut y = g;
            if layer {
                let b = trial.operand(&bias, float, aligned, each, of(&bias), 0.0)?;
                for (j, v) in v.iter().enumerate() {
                    y[j] = (v - mean).mul_add(scale, offset).mul_add(g[j] + plus, b[j]);
                }
            } else {
                for (j, v) in v.iter().enumerate() {
                    y[j] = v * scale * g[j];
                }
            }
            trial.store_floats(float, aligned, &y[..each], out, at[1].wrapping_add(first))?;
        }
    }
    Some(())
}

/// `row_sums` of prelude.cuh: each thread adds its vectors, each warp the sums of its threads, and then those of the warps are added.
fn row_sum(values: &[f32], each: usize, threads: usize, add: &dyn Fn(f32, f32) -> f32) -> f32 {
    let mut of_threads = vec![0.0; threads];
    for (number, vector) in values.chunks(each).enumerate() {
        let sum = &mut of_threads[number % threads];
        for value in vector {
            *sum = add(*sum, *value);
        }
    }
    let warps: Vec<f32> = of_threads.chunks(32).map(lanes_sum).collect();
    match warps[..] {
        [only] => only,
        _ => lanes_sum(&warps),
    }
}

/// `lanes_sum` of prelude.cuh. Lanes that are not there are 0.
fn lanes_sum(of: &[f32]) -> f32 {
    let mut lanes = [0.0; 32];
    lanes[..of.len()].copy_from_slice(of);
    for step in [16, 8, 4, 2, 1] {
        for lane in 0..step {
            lanes[lane] += lanes[lane + step];
        }
    }
    lanes[0]
}
