//! A small and slow implementation of the algorithm: one process, whole arrays, no stages, no messages, no patch states. The
//! queries of a row see the last keys and values of every row. These are fresh for the patches that have run in this step, and
//! one step old for the others. Text is computed with patch 0.

use crate::run::{Model, Plan};
use crate::toy::{
    CHANNELS, HEADS, HIDDEN, IMAGE, ROW_TOKENS, ROWS, Row, TEXT, embed_image, embed_text,
    has_attention, join, pointwise, project, qkv, reader, update,
};

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The image after each step.
    pub(crate) images: Vec<Vec<f32>>,
    pub(crate) drift: Vec<Option<f64>>,
    pub(crate) whole: Vec<usize>,
    pub(crate) refreshed: Vec<usize>,
}

/// The patch of each row of text and image; text counts as part of patch 0.
fn patch_of_rows(patches: usize) -> Vec<usize> {
    let mut owner = vec![0; TEXT];
    for patch in 0..patches {
        let rows = ROWS / patches + usize::from(patch < ROWS % patches);
        owner.extend(vec![patch; rows * ROW_TOKENS]);
    }
    owner
}

fn softmax_sum(q: &Row, keys: &[Row], values: &[Row]) -> Row {
    let d = HIDDEN / HEADS;
    let mut out = [0.0; HIDDEN];
    for head in 0..HEADS {
        let dims = head * d..(head + 1) * d;
        let score = |k: &Row| {
            let dot: f64 = dims
                .clone()
                .map(|j| f64::from(q[j]) * f64::from(k[j]))
                .sum();
            (dot / (d as f64).sqrt()).exp()
        };
        let weights: Vec<f64> = keys.iter().map(score).collect();
        let total: f64 = weights.iter().sum();
        for j in dims.clone() {
            let terms = weights.iter().zip(values);
            let sum: f64 = terms.map(|(w, v)| w * f64::from(v[j])).sum();
            out[j] = (sum / total) as f32;
        }
    }
    out
}

pub(crate) fn simulate(plan: &Plan, noise: &[f32]) -> Outcome {
    let owner = patch_of_rows(plan.patches);
    let all = TEXT + IMAGE;
    let blocks = plan.model.blocks();
    let mut keys = vec![vec![[0f32; HIDDEN]; all]; blocks];
    let mut values = keys.clone();
    let mut x = noise.to_vec();
    let mut before: Option<Vec<f32>> = None;
    let mut outcome = Outcome::default();
    for step in 0..plan.steps {
        let mut whole = step == 0 || step < plan.warmup_steps || plan.patches == 1;
        if let (false, Some(limit), 2..) = (whole, plan.max_drift, step)
            && outcome.drift[step - 2].is_some_and(|drift| drift > f64::from(limit))
        {
            outcome.refreshed.push(step);
            whole = true;
        }
        if whole {
            outcome.whole.push(step);
        }
        let turns: Vec<Vec<usize>> = match whole {
            true => vec![(0..all).collect()],
            false => (0..plan.patches)
                .map(|patch| (0..all).filter(|row| owner[*row] == patch).collect())
                .collect(),
        };
        let mut prediction = vec![0.0; IMAGE * CHANNELS];
        let (mut moved, mut norm) = (0.0, 0.0);
        for rows in turns {
            let mut hidden: Vec<Row> = rows
                .iter()
                .map(|row| match row.checked_sub(TEXT) {
                    None => embed_text(*row),
                    Some(token) => embed_image(token, &x[token * CHANNELS..][..CHANNELS]),
                })
                .collect();
            let mut outputs: Vec<Vec<Row>> = Vec::new();
            for block in 0..blocks {
                let source = (0..block).find(|source| reader(*source, blocks) == Some(block));
                if let Some(source) = source.filter(|_| plan.model != Model::Straight) {
                    for (h, skip) in hidden.iter_mut().zip(&outputs[source]) {
                        *h = join(h, skip);
                    }
                }
                if !has_attention(block) {
                    for h in &mut hidden {
                        *h = pointwise(block, step, h);
                    }
                    outputs.push(hidden.clone());
                    continue;
                }
                for (row, h) in rows.iter().zip(&hidden) {
                    let first = owner.iter().position(|patch| *patch == owner[*row]);
                    let sampled = (row - first.expect("it has an owner")) % 16 == 0;
                    for (which, kept) in [(1, &mut keys), (2, &mut values)] {
                        let fresh = qkv(block, which, h);
                        // Nobody ever uses old rows of patch 0 and text.
                        if step > 0 && owner[*row] > 0 && sampled {
                            for (new, old) in fresh.iter().zip(kept[block][*row]) {
                                moved += (f64::from(*new) - f64::from(old)).powi(2);
                                norm += f64::from(*new).powi(2);
                            }
                        }
                        kept[block][*row] = fresh;
                    }
                }
                for h in &mut hidden {
                    let seen = softmax_sum(&qkv(block, 0, h), &keys[block], &values[block]);
                    h.iter_mut().zip(seen).for_each(|(h, seen)| *h += seen);
                }
                outputs.push(hidden.clone());
            }
            for (row, h) in rows.iter().zip(&hidden) {
                if let Some(token) = row.checked_sub(TEXT) {
                    prediction[token * CHANNELS..][..CHANNELS].copy_from_slice(&project(h));
                }
            }
        }
        for (i, x) in x.iter_mut().enumerate() {
            *x = update(*x, prediction[i], before.as_ref().map(|before| before[i]));
        }
        before = Some(prediction);
        outcome.images.push(x.clone());
        outcome
            .drift
            .push((norm > 0.0).then(|| (moved / norm).sqrt()));
    }
    outcome
}
