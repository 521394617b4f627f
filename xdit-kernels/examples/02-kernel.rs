//! A transformer block's attention branch out of fused kernels, in every tier that this processor has.
//!
//! `cargo run --release -p xdit-kernels --example 02-kernel`

use std::time::Instant;
use xdit_kernels::{
    DType, Device, Result, Tensor, TensorMut, Tier, View,
    attention::{Attention, AttnInput, Flash},
    linear::{Epilogue, Linear},
    norm::layer_norm_modulate,
    rope::{HeadNorm, QkNormRope, qk_norm_rope_into, rope_table},
};

const B: usize = 1;
const L: usize = 256;
const H: usize = 6;
const D: usize = 64;
const C: usize = H * D;

/// Numbers without pattern, the same in every run.
fn numbers(shape: &[usize], scale: f32, seed: u32, device: &Device) -> Result<Tensor> {
    let mut state = seed;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 8_388_608.0 - 1.0) * scale
    });
    let data: Vec<f32> = next.take(shape.iter().product()).collect();
    Tensor::from_slice(&data, shape, device)
}

/// x + gate·proj(attention(qk_norm_rope(qkv(modulate(layer_norm(x)))))), five kinds of kernels.
fn branch(device: &Device) -> Result<Tensor> {
    let x_blc = numbers(&[B, L, C], 1.0, 1, device)?;
    let modulation = numbers(&[3, B, C], 0.5, 2, device)?;
    let part = |i| modulation.view().select(0, i);
    let pack = |n: usize, seed| -> Result<Linear> {
        let weight = numbers(&[n, C], 1.0 / (C as f32).sqrt(), seed, device)?;
        Linear::pack(weight.view(), None, DType::F32, device)
    };
    let (to_qkv, to_out) = (pack(3 * C, 3)?, pack(C, 4)?);
    let ones = vec![1f32; D];
    let weight = Some(View::from_slice(&ones, [D], device)?);
    let positions: Vec<f32> = (0..L).map(|i| i as f32).collect();
    let (cos, sin) = rope_table(&positions, D, 10_000.0, device)?;

    let x = x_blc.view();
    let normed = layer_norm_modulate(x, part(0)?, part(1)?, 1e-6)?;
    let qkv = to_qkv.forward(&normed)?;
    let qkv_bl3hd = qkv.view().split_last(&[3, H, D])?;
    let new = || TensorMut::zeros([B, L, H, D], DType::F32, device);
    let (mut q, mut k, mut v) = (new()?, new()?, new()?);
    let options = QkNormRope {
        norm_q: weight.map(HeadNorm::Rms),
        norm_k: weight.map(HeadNorm::Rms),
        eps: 1e-6,
        rope: Some((cos.view(), sin.view())),
    };
    qk_norm_rope_into(
        qkv_bl3hd,
        &options,
        q.view_mut(),
        k.view_mut(),
        v.view_mut(),
    )?;
    let (q, k, v) = (q.freeze(), k.freeze(), v.freeze());
    let attended = Flash.attend(&AttnInput::new(&q, &k, &v))?;
    let attended = attended.out.reshape([B, L, C])?;
    let gate = part(2)?;
    to_out.forward_with(
        &[attended.view()],
        Epilogue::GateResidual { gate, residual: x },
    )
}

fn main() -> Result<()> {
    for tier in Tier::available() {
        let start = Instant::now();
        let y = branch(&Device::cpu_with(tier)?)?;
        let time = start.elapsed();
        let first = &y.to_vec_blocking::<f32>()?[..4];
        println!("{tier:>12}: {first:.6?} in {time:.1?}, packing included");
    }
    Ok(())
}
