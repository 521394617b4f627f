//! The loops over elements. Sums are added one after another; counts, which no order changes, by all threads.

use crate::{Result, View, finite::count_not_finite, layout, rows::Floats};

/// Σ(fresh − stale)² and Σfresh² of these rows of dim 1, one element after the other.
pub(super) fn distance(
    op: &'static str,
    fresh: View<'_>,
    stale: View<'_>,
    rows: impl Iterator<Item = usize>,
    to: &mut [f64],
) -> Result<()> {
    let [mut moved, mut norm] = [to[0], to[1]];
    for row in rows {
        let (fresh, stale) = (fresh.narrow(1, row, 1)?, stale.narrow(1, row, 1)?);
        let shape = fresh.shape();
        let fresh_values = Floats::new(op, fresh, shape)?;
        let stale_values = Floats::new(op, stale, shape)?;
        for (fresh, stale) in fresh_values.iter().zip(stale_values.iter()) {
            let (fresh, stale) = (f64::from(*fresh), f64::from(*stale));
            moved += (fresh - stale).powi(2);
            norm += fresh.powi(2);
        }
    }
    to.copy_from_slice(&[moved, norm]);
    Ok(())
}

/// Σx and Σx² of each entry, of which `to` has two numbers each.
pub(super) fn moments(op: &'static str, x: View<'_>, to: &mut [f64]) -> Result<()> {
    let values = Floats::new(op, x, x.shape())?;
    let (pairs, _) = to.as_chunks_mut::<2>();
    let len = values.len() / pairs.len().max(1);
    for (entry, [sum, squares]) in pairs.iter_mut().enumerate() {
        let [x, xx] = moments_of(&values[entry * len..(entry + 1) * len]);
        *sum += x;
        *squares += xx;
    }
    Ok(())
}

/// Σx and Σx², in an order that depends on the length alone. Eight running sums let the compiler use vectors.
fn moments_of(values: &[f32]) -> [f64; 2] {
    let mut lanes = [[0f64; 8]; 2];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    let mut add = |lane: usize, x: f32| {
        let x = f64::from(x);
        lanes[0][lane] += x;
        lanes[1][lane] += x * x;
    };
    for chunk in chunks {
        for (lane, x) in chunk.iter().enumerate() {
            add(lane, *x);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        add(lane, *x);
    }
    lanes.map(|lanes| lanes.iter().sum())
}

/// How many are NaN or infinite in each entry, of which `to` has a number each.
pub(super) fn not_finite(op: &'static str, x: View<'_>, to: &mut [f64]) -> Result<()> {
    let copy;
    let x = match x.is_contiguous() {
        true => x,
        false => {
            copy = layout::contiguous(x)?;
            copy.view()
        }
    };
    for (entry, count) in to.iter_mut().enumerate() {
        *count += count_not_finite(op, x.narrow(0, entry, 1)?)? as f64;
    }
    Ok(())
}

/// Adds each of `more` to its sum.
pub(super) fn add(to: &mut [f64], more: &[f64]) {
    for (sum, more) in to.iter_mut().zip(more) {
        *sum += more;
    }
}
