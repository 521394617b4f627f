//! torch's block path: Box–Muller turns the eight pairs of a block of 16 uniform numbers into normal numbers.

/// Length of a block. Fewer numbers are drawn one by one.
pub(super) const BLOCK: usize = 16;

/// Draws all uniform numbers first and turns whole blocks into normal numbers. If a part of a block is left, draws the last 16
/// numbers again.
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

/// Like [`fill_in_place`] with f32 blocks that are then rounded. Here a partial block draws no uniform numbers of its own.
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

/// Box–Muller on eight pairs `(block[i], block[i + 8])`, rounded to f32 where torch rounds.
///
/// The functions are evaluated in f64 and rounded. The result is within half a unit of any good f32 library, and the same on
/// all platforms.
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
