//! What a HunyuanDiT transformer knows of a call beside its latents: where tokens stand, and timestep, pooled text, sizes and
//! style as one vector (diffusers `models/embeddings.py`).
//!
//! Shapes: b images, l tokens, c channels, d head dim.

use xdit_kernels::attention::{Attention, AttnInput, Flash, Segment};
use xdit_kernels::linear::Linear;
use xdit_kernels::{DType, Tensor, elementwise};

use super::HunyuanConfig;
use super::config::POOLER_HEADS;
use crate::error::Result;
use crate::layers::{Mlp, Packing, TIME_CHANNELS, byte_len, sinusoid};
use crate::observer::Observer;
use crate::weights::Scope;

/// Base of the rotary frequencies.
const THETA: f64 = 10_000.0;
/// Latent pixels along the side of the pictures whose tokens stand at whole numbers: 512 pixels, an eighth of them latent.
const BASE_PIXELS: usize = 512 / 8;
/// Numbers that tell a picture's original size, its target size and where it was cropped.
pub(super) const SIZE_NUMBERS: usize = 6;

/// Where image tokens stand: the cosines and sines that rotate queries and keys, and which rows of which parts of the image the
/// tokens are. Text is read by cross-attention and stands nowhere.
///
/// # Examples
/// ```
/// use xdit_models::{ConfigFile, hunyuandit::{HunyuanConfig, HunyuanPositions}};
/// let json = br#"{"hidden_size": 1408, "in_channels": 4, "patch_size": 2}"#;
/// let config = HunyuanConfig::read(&ConfigFile::parse("config.json", json)?)?;
/// // A picture of 1024 × 768 pixels.
/// let positions = HunyuanPositions::new(&config, 64, 48)?;
/// assert_eq!(positions.cos().shape(), [64 * 48, 88]);
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HunyuanPositions {
    cos_ld: Tensor,
    sin_ld: Tensor,
    segments: Vec<Segment>,
}

impl HunyuanPositions {
    /// The positions of an image of `rows` × `columns` tokens (`get_2d_rotary_pos_embed` in the region of
    /// `get_resize_crop_region_for_grid`): the longer side spans 32 places for patches of two latent pixels, the other is
    /// centred among as many. The first half of a head turns with the column, the second with the row.
    ///
    /// # Shapes
    /// Both tables are `[rows · columns, attention_head_dim]`, each frequency twice in a row, f32.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when there is no memory for them, or no token.
    pub fn new(config: &HunyuanConfig, rows: usize, columns: usize) -> Result<Self> {
        if rows * columns == 0 {
            let expected = "at least one token along each side";
            return Err(
                xdit_kernels::Error::shape("hunyuan positions", expected, [rows, columns]).into(),
            );
        }
        let base = (BASE_PIXELS / config.patch_size) as f64;
        let (h, w) = (rows as f64, columns as f64);
        // Python's `round`: halves to even.
        let [height, width] = match h > w {
            true => [base, (base / h * w).round_ties_even()],
            false => [(base / w * h).round_ties_even(), base],
        };
        let along = |size: f64, count: usize| {
            let start = ((base - size) / 2.0).round_ties_even();
            let stop = start + size;
            linspace(start, stop * (count as f64 - 1.0) / count as f64, count)
        };
        let (y, x) = (along(height, rows), along(width, columns));
        let half = config.attention_head_dim / 2;
        let len = rows * columns * 2 * half;
        let (mut cos, mut sin) = (Vec::with_capacity(len), Vec::with_capacity(len));
        let frequencies = frequencies(half);
        for row in &y {
            for column in &x {
                for place in [column, row] {
                    for frequency in &frequencies {
                        // The angle is f32 in diffusers too.
                        let angle = f64::from(place * frequency);
                        cos.extend([angle.cos() as f32; 2]);
                        sin.extend([angle.sin() as f32; 2]);
                    }
                }
            }
        }
        let shape = [rows * columns, 2 * half];
        Ok(Self {
            cos_ld: Tensor::from_slice(&cos, shape)?,
            sin_ld: Tensor::from_slice(&sin, shape)?,
            segments: vec![Segment {
                stream: 1,
                start: 0,
                len: rows * columns,
                total: rows * columns,
            }],
        })
    }

    /// The positions of parts of the image, each part a stream of its own (the image as a whole too) with the place of its
    /// first token in the image.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if there are no such rows.
    pub fn part(&self, image: &[(usize, Segment)]) -> Result<Self> {
        let rows = |table: &Tensor| {
            let runs = image
                .iter()
                .map(|(place, rows)| table.view().narrow(0, place + rows.start, rows.len))
                .collect::<xdit_kernels::Result<Vec<_>>>()?;
            Tensor::cat(&runs, 0)
        };
        Ok(Self {
            cos_ld: rows(&self.cos_ld)?,
            sin_ld: rows(&self.sin_ld)?,
            segments: image.iter().map(|(_, rows)| *rows).collect(),
        })
    }

    /// The cosines, `[l, d]`.
    #[must_use]
    pub fn cos(&self) -> &Tensor {
        &self.cos_ld
    }

    /// The sines, `[l, d]`.
    #[must_use]
    pub fn sin(&self) -> &Tensor {
        &self.sin_ld
    }

    /// How many tokens there are.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.cos_ld.dim(0)
    }

    /// Which rows of which parts of the image the tokens are.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// Numbers at even distances, both ends among them, as torch's f32 `linspace` has them: from the nearer end.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / count.saturating_sub(1).max(1) as f32;
    (0..count)
        .map(|i| match i < count / 2 {
            true => start + step * i as f32,
            false => end - step * (count - 1 - i) as f32,
        })
        .collect()
}

/// `1 / 10000^(2i / dim)`, rounded to f32 where torch rounds it.
fn frequencies(dim: usize) -> Vec<f32> {
    let frequency = |i: usize| {
        let exponent = i as f32 / dim as f32;
        1.0 / THETA.powf(f64::from(exponent)) as f32
    };
    (0..dim).step_by(2).map(frequency).collect()
}

/// Attention of the mean of mT5's embeddings to all of them (`HunyuanDiTAttentionPool`).
#[derive(Debug)]
struct Pooler {
    /// Of the mean, then of each token: `[1 + l, c]`.
    positions: Tensor,
    q: Linear,
    kv: Linear,
    out: Linear,
}

impl Pooler {
    fn load(config: &HunyuanConfig, scope: &Scope<'_>, packing: &mut Packing<'_>) -> Result<Self> {
        let c = config.cross_attention_dim_t5;
        let shape = [1 + config.text_len_t5, c];
        let kv = ["k_proj", "v_proj"].map(|name| (scope.child(name), c));
        Ok(Self {
            positions: packing.small(scope, "positional_embedding", &shape)?,
            q: packing.linear(&scope.child("q_proj"), [c, c], true)?,
            kv: packing.fused(&kv, c, true)?,
            out: packing.linear(
                &scope.child("c_proj"),
                [config.pooled_projection_dim, c],
                true,
            )?,
        })
    }

    /// `[b, l, c]` to `[b, pooled]`, f32.
    fn forward(&self, embeds_blc: &Tensor) -> Result<Tensor> {
        let (b, l, c) = (embeds_blc.dim(0), embeds_blc.dim(1), embeds_blc.dim(2));
        let embeds = embeds_blc.to_f32_vec();
        let mut means = vec![0f32; b * c];
        for (mean, rows) in means.chunks_mut(c).zip(embeds.chunks(l * c)) {
            for (i, mean) in mean.iter_mut().enumerate() {
                let column = rows.iter().skip(i).step_by(c);
                *mean = (column.map(|v| f64::from(*v)).sum::<f64>() / l as f64) as f32;
            }
        }
        let mean_b1c = Tensor::from_slice(&means, [b, 1, c])?.on(embeds_blc.device());
        let embeds_blc = embeds_blc.to_dtype(DType::F32)?;
        let x_blc = Tensor::cat(&[mean_b1c.view(), embeds_blc.view()], 1)?;
        let x_blc = elementwise::add(&x_blc, &self.positions)?;
        let heads = [POOLER_HEADS, c / POOLER_HEADS];
        let q_b1c = self.q.forward(x_blc.view().narrow(1, 0, 1)?)?;
        let kv_blc = self.kv.forward(&x_blc)?;
        let kv = kv_blc.view().split_last(&[2, heads[0], heads[1]])?;
        let input = AttnInput {
            lse: false,
            ..AttnInput::new(
                q_b1c.view().split_last(&heads)?,
                kv.select(2, 0)?,
                kv.select(2, 1)?,
            )
        };
        let pooled = Flash.attend(&input)?.out.reshape([b, c])?;
        Ok(self.out.forward(&pooled)?)
    }

    fn byte_len(&self) -> usize {
        byte_len(&[&self.q, &self.kv, &self.out], &[&self.positions])
    }
}

/// Timestep, pooled text, sizes and style as the one vector that shifts every block
/// (`HunyuanCombinedTimestepTextSizeStyleEmbedding`): all of it in f32 whatever the dtype.
#[derive(Debug)]
pub(super) struct TimeExtraEmbed {
    timestep: Mlp,
    pooler: Pooler,
    /// The one style there is, `[1, c]`, in models that embed styles and sizes.
    style: Option<Tensor>,
    extra: Mlp,
}

impl TimeExtraEmbed {
    pub(super) fn load(
        config: &HunyuanConfig,
        scope: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let c = config.hidden_size();
        let style = scope.child("style_embedder");
        Ok(Self {
            timestep: Mlp::load(
                &scope.child("timestep_embedder"),
                [TIME_CHANNELS, c, c],
                packing,
            )?,
            pooler: Pooler::load(config, &scope.child("pooler"), packing)?,
            style: match config.style_and_size {
                true => Some(packing.small(&style, "weight", &[1, c])?),
                false => None,
            },
            extra: Mlp::load(
                &scope.child("extra_embedder"),
                [extra_channels(config), 4 * c, c],
                packing,
            )?,
        })
    }

    /// What mT5's embeddings `[b, l, c]` and the sizes make of themselves, f32 `[b, c]`: the same in every step.
    pub(super) fn extra(
        &self,
        embeds_blc: &Tensor,
        sizes: &[f32; SIZE_NUMBERS],
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let pooled_bc = self.pooler.forward(embeds_blc)?;
        observer.offer("transformer.pooler", &pooled_bc)?;
        let rows = |row: &Tensor| Tensor::cat(&vec![row.view(); pooled_bc.dim(0)], 0);
        let joined = match &self.style {
            None => pooled_bc,
            Some(style) => {
                let sizes = sinusoid(sizes)?.on(pooled_bc.device());
                observer.offer("transformer.size_proj", &rows(&sizes)?)?;
                let sizes = rows(&sizes.reshape([1, SIZE_NUMBERS * TIME_CHANNELS])?)?;
                let style = rows(style)?;
                observer.offer("transformer.style_embedder", &style)?;
                Tensor::cat(&[pooled_bc.view(), sizes.view(), style.view()], 1)?
            }
        };
        let extra_bc = self.extra.forward(&joined)?;
        observer.offer("transformer.extra_embedder", &extra_bc)?;
        Ok(extra_bc)
    }

    /// The vector of timesteps from 1000 down and of what is the same in every step, f32 `[b, c]`.
    pub(super) fn forward(
        &self,
        timestep: &[f32],
        extra_bc: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let projected = sinusoid(timestep)?.on(extra_bc.device());
        observer.offer("transformer.time_proj", &projected)?;
        let temb = self.timestep.forward(&projected)?;
        observer.offer("transformer.timestep_embedder", &temb)?;
        let temb = elementwise::add(&temb, extra_bc)?;
        observer.offer("transformer.temb", &temb)?;
        Ok(temb)
    }

    /// Bytes that it holds.
    pub(super) fn byte_len(&self) -> usize {
        let style: Vec<_> = self.style.iter().collect();
        self.timestep.byte_len()
            + self.pooler.byte_len()
            + self.extra.byte_len()
            + byte_len(&[], &style)
    }
}

/// Numbers that the pooled text, the sizes and the style are together.
pub(super) fn extra_channels(config: &HunyuanConfig) -> usize {
    let others = match config.style_and_size {
        true => SIZE_NUMBERS * TIME_CHANNELS + config.hidden_size(),
        false => 0,
    };
    config.pooled_projection_dim + others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    fn positions(rows: usize, columns: usize) -> HunyuanPositions {
        let json = br#"{"attention_head_dim": 8, "num_attention_heads": 1, "hidden_size": 8, "in_channels": 4,
            "patch_size": 2}"#;
        let config = HunyuanConfig::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        HunyuanPositions::new(&config, rows, columns).unwrap()
    }

    #[test]
    fn the_longer_side_spans_32_places() {
        // Places 0, 8, 16, 24 along four columns; two rows in the middle sixteen of 32 places.
        let tables = positions(2, 4);
        let cos = tables.cos().to_f32_vec();
        let angle_of = |place: f64| place.cos() as f32;
        for (token, (row, column)) in [
            (8.0, 0.0),
            (8.0, 8.0),
            (8.0, 16.0),
            (8.0, 24.0),
            (16.0, 0.0),
        ]
        .into_iter()
        .enumerate()
        {
            // Entries 0 and 1 turn with the column, 4 and 5 with the row.
            let own = &cos[8 * token..8 * token + 8];
            assert_eq!([own[0], own[1]], [angle_of(column); 2], "token {token}");
            // The second frequency is a hundredth.
            assert!((own[2] - angle_of(column / 100.0)).abs() <= 6e-8);
            if token < 4 {
                assert_eq!(own[4], angle_of(row), "token {token}");
            }
        }
        // stop is 24 · (2 − 1) / 2 = 12: the second row's place.
        assert_eq!(cos[8 * 4 + 4], angle_of(12.0));
    }

    #[test]
    fn parts_keep_their_places_in_the_image() {
        let whole = positions(4, 3);
        let rows = |stream, start, len, total| Segment {
            stream,
            start,
            len,
            total,
        };
        assert_eq!(whole.segments(), [rows(1, 0, 12, 12)]);
        // Rows 2 and 3 are a patch of six tokens; this rank has the last two.
        let patch = (6, rows(2, 4, 2, 6));
        let part = whole.part(&[patch]).unwrap();
        assert_eq!(part.segments(), [patch.1]);
        let want = whole.cos().narrow(0, 10, 2).unwrap();
        assert_eq!(part.cos().to_f32_vec(), want.to_f32_vec());
        assert_eq!(part.token_count(), 2);
        assert!(whole.part(&[(12, rows(1, 0, 1, 12))]).is_err());
        let json = br#"{"hidden_size": 1408, "in_channels": 4, "patch_size": 2}"#;
        let config = HunyuanConfig::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        assert!(HunyuanPositions::new(&config, 0, 4).is_err());
    }
}
