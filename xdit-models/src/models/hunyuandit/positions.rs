//! Where the tokens of a HunyuanDiT transformer stand, as rotary tables (diffusers `models/embeddings.py`,
//! `pipelines/hunyuandit/pipeline_hunyuandit.py`).
//!
//! Shapes: l tokens, d head dim.

use xdit_kernels::{Device, attention::Segment};
use xdit_kernels::{Tensor, reserved};

use super::HunyuanConfig;
use crate::error::Result;

/// Base of the rotary frequencies.
const THETA: f64 = 10_000.0;
/// Latent pixels along the side of an image whose tokens have whole numbers as positions: 512 pixels, an eighth of them latent.
const BASE_PIXELS: usize = 512 / 8;

/// The positions of image tokens: the cosines and sines that rotate queries and keys, and the rows of the parts of the image
/// that the tokens are. Text has no positions, because blocks read it by cross-attention.
///
/// # Examples
/// ```
/// use xdit_kernels::Device;
/// use xdit_models::{ConfigFile, hunyuandit::{HunyuanConfig, HunyuanPositions}};
/// let json = br#"{"hidden_size": 1408, "in_channels": 4, "patch_size": 2}"#;
/// let config = HunyuanConfig::read(&ConfigFile::parse("config.json", json)?)?;
/// // An image of 1024 × 768 pixels.
/// let positions = HunyuanPositions::new(&config, 64, 48, &Device::cpu())?;
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
    /// Both tables are f32 `[rows · columns, attention_head_dim]`. Each frequency occurs twice in succession.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if there is no memory for them, or no token.
    pub fn new(
        config: &HunyuanConfig,
        rows: usize,
        columns: usize,
        device: &Device,
    ) -> Result<Self> {
        if rows * columns == 0 {
            let expected = "at least one token along each side";
            return Err(
                xdit_kernels::Error::shape("hunyuan positions", expected, [rows, columns]).into(),
            );
        }
        let base = (BASE_PIXELS / config.patch_size) as f64;
        let (h, w) = (rows as f64, columns as f64);
        // Python's `round` rounds halves to even.
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
        let (mut cos, mut sin) = (reserved("cosines", len)?, reserved("sines", len)?);
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
            cos_ld: Tensor::from_slice(&cos, shape, device)?,
            sin_ld: Tensor::from_slice(&sin, shape, device)?,
            segments: vec![Segment {
                stream: 1,
                start: 0,
                len: rows * columns,
                total: rows * columns,
            }],
        })
    }

    /// Returns the positions of parts of the image. Each part is a stream (the image as a whole too), with the position of its
    /// first token in the image.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if these rows do not exist.
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

    /// Returns the cosines, `[l, d]`.
    #[must_use]
    pub fn cos(&self) -> &Tensor {
        &self.cos_ld
    }

    /// Returns the sines, `[l, d]`.
    #[must_use]
    pub fn sin(&self) -> &Tensor {
        &self.sin_ld
    }

    /// Returns the number of tokens.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.cos_ld.dim(0)
    }

    /// Returns the rows of the parts of the image that the tokens are.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// Returns evenly spaced numbers with both ends, as torch's f32 `linspace` computes them: each from the nearer end. A single
/// number is the start.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / count.saturating_sub(1) as f32;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;

    fn positions(rows: usize, columns: usize) -> HunyuanPositions {
        let json = br#"{"attention_head_dim": 8, "num_attention_heads": 1, "hidden_size": 8, "in_channels": 4,
            "patch_size": 2}"#;
        let config = HunyuanConfig::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        HunyuanPositions::new(&config, rows, columns, &Device::cpu()).unwrap()
    }

    #[test]
    fn the_longer_side_spans_32_places() {
        // Places 0, 8, 16, 24 along four columns; two rows in the middle sixteen of 32 places.
        let tables = positions(2, 4);
        let cos = tables.cos().to_vec_blocking::<f32>().unwrap();
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
        // A row by itself stands at the start of the eight in the middle.
        let cos = positions(1, 4).cos().to_vec_blocking::<f32>().unwrap();
        assert_eq!([cos[4], cos[8 * 3]], [12.0, 24.0].map(angle_of));
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
        assert_eq!(
            part.cos().to_vec_blocking::<f32>().unwrap(),
            want.to_vec_blocking::<f32>().unwrap()
        );
        assert_eq!(part.token_count(), 2);
        assert!(whole.part(&[(12, rows(1, 0, 1, 12))]).is_err());
        let json = br#"{"hidden_size": 1408, "in_channels": 4, "patch_size": 2}"#;
        let config = HunyuanConfig::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        assert!(HunyuanPositions::new(&config, 0, 4, &Device::cpu()).is_err());
    }
}
