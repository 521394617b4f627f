//! torch's block path: uniforms in blocks of 16, eight pairs of which become normals by Box–Muller.

/// Length of a block; fewer numbers than this are drawn one by one.
pub(super) const BLOCK: usize = 16;

/// Draws every uniform first, turns whole blocks into normals, then draws the last 16 places again when a part of a
/// block is left.
pub(super) fn fill_in_place<T>(
    noise: &mut [T],
    mut uniform: impl FnMut() -> T,
    box_muller: impl Fn(&mut [T; BLOCK]),
) {
    noise.fill_with(&mut uniform);
    let (blocks, rest) = noise.as_chunks_mut();
    blocks.iter_mut().for_each(&box_muller);
    if !rest.is_empty()
        && let Some(last) = noise.last_chunk_mut()
    {
        last.fill_with(uniform);
        box_muller(last);
    }
}

/// As [`fill_in_place`] by f32 blocks that are then rounded; here a partial block draws no uniforms of its own.
pub(super) fn fill_rounded<T>(
    noise: &mut [T],
    mut uniform: impl FnMut() -> f32,
    round: impl Fn(f32) -> T,
) {
    let mut draw = |block: &mut [T; BLOCK]| {
        let mut values = std::array::from_fn(|_| uniform());
        box_muller_f32(&mut values);
        for (out, value) in block.iter_mut().zip(values) {
            *out = round(value);
        }
    };
    let (blocks, rest) = noise.as_chunks_mut();
    blocks.iter_mut().for_each(&mut draw);
    if !rest.is_empty()
        && let Some(last) = noise.last_chunk_mut()
    {
        draw(last);
    }
}

/// Box–Muller on eight pairs `(block[i], block[i + 8])`, rounding to f32 where torch does.
///
/// The functions are evaluated in f64 and rounded: that is within half a unit of any good f32 library, and the same on
/// every platform.
pub(super) fn box_muller_f32(block: &mut [f32; BLOCK]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let log = f64::from(1.0 - *a).ln() as f32;
        let radius = (-2.0 * log).sqrt();
        let theta = (std::f64::consts::TAU * f64::from(*b)) as f32;
        let (sin, cos) = f64::from(theta).sin_cos();
        *a = radius * cos as f32;
        *b = radius * sin as f32;
    }
}

/// Box–Muller on eight pairs `(block[i], block[i + 8])` in f64.
pub(super) fn box_muller_f64(block: &mut [f64; BLOCK]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * *b).sin_cos();
        *a = radius * cos;
        *b = radius * sin;
    }
}
