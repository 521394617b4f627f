//! Decoding in overlapping tiles (diffusers `models/autoencoders/autoencoder_kl.py`: `AutoencoderKL.tiled_decode`).
//!
//! Shapes: b images, h and w pixels, c channels, channels last.

use xdit_kernels::{Tensor, View, reserved};

use super::{VaeConfig, VaeDecoder, Whole, dims, expect_channels};
use crate::error::Result;

/// The size of tiles and their distance, in latent pixels.
///
/// diffusers fades over `int(sample_size / 4)` image pixels and decodes tiles `int(latent size · 3/4)` apart. If these do not
/// give the same overlap, its image has another size than the requested one. Here the fade is the overlap of the tiles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tiling {
    pub(crate) size: usize,
    step: usize,
}

impl Tiling {
    pub(crate) fn new(config: &VaeConfig) -> Self {
        let size = (config.sample_size / config.scale_factor()).max(1);
        Self {
            size,
            step: (size * 3 / 4).max(1),
        }
    }
}

/// A decoded tile, f32 `[b, h, w, c]`.
struct DecodedTile {
    values: Vec<f32>,
    h: usize,
    w: usize,
}

/// The direction in which a tile follows another.
#[derive(Clone, Copy)]
enum TileEdge {
    Above,
    Left,
}

impl VaeDecoder {
    /// Decodes the images tile by tile, and blends tiles where they overlap by a quarter. The activations are those of a tile
    /// of [`VaeConfig::sample_size`] squared, for images of any size. It is an approximation: group norm and attention see one
    /// tile each, so tiles may differ in colour. Latents that fit one tile are decoded whole.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_tiled(&self, latents_bhwc: &Tensor) -> Result<Tensor> {
        self.tiled(latents_bhwc, &Whole::default())
    }

    /// The same, on a rank for which others wait.
    pub(crate) fn tiled(&self, latents_bhwc: &Tensor, alone: &Whole) -> Result<Tensor> {
        expect_channels("vae decoder", latents_bhwc, self.config().latent_channels)?;
        let [b, h, w, _] = *dims(latents_bhwc)?;
        let Tiling { size, step } = Tiling::new(self.config());
        if h <= size && w <= size {
            return self.forward_band(latents_bhwc, alone, &mut ());
        }
        let (scale, c) = (self.config().scale_factor(), self.config().out_channels);
        let [height, width] = [h, w].map(|n| n * scale);
        let fade = (size - step) * scale;
        let len = b * height * width * c;
        let mut out = reserved("tiled picture", len)?;
        out.resize(len, 0f32);
        let mut above: Vec<DecodedTile> = Vec::new();
        for y in (0..h).step_by(step) {
            let mut row: Vec<DecodedTile> = Vec::new();
            for (j, x) in (0..w).step_by(step).enumerate() {
                let latents = latents_bhwc.view().narrow(1, y, size.min(h - y))?.narrow(
                    2,
                    x,
                    size.min(w - x),
                )?;
                let mut tile = self.tile(latents, alone)?;
                if let Some(above) = above.get(j) {
                    tile.fade_from(above, TileEdge::Above, fade, c);
                }
                if let Some(left) = row.last() {
                    tile.fade_from(left, TileEdge::Left, fade, c);
                }
                // The part that the next tiles do not blend.
                let (rows, columns) = (tile.h.min(step * scale), tile.w.min(step * scale) * c);
                for line in 0..b * rows {
                    let (picture, line) = (line / rows, line % rows);
                    let from = (picture * tile.h + line) * tile.w * c;
                    let to = ((picture * height + y * scale + line) * width + x * scale) * c;
                    out[to..to + columns].copy_from_slice(&tile.values[from..from + columns]);
                }
                row.push(tile);
            }
            above = row;
        }
        Ok(Tensor::from_slice(
            &out,
            [b, height, width, c],
            latents_bhwc.device(),
        )?)
    }

    fn tile(&self, latents_bhwc: View<'_>, alone: &Whole) -> Result<DecodedTile> {
        let decoded = self.forward_band(&latents_bhwc.to_tensor()?, alone, &mut ())?;
        Ok(DecodedTile {
            values: decoded.to_vec_blocking::<f32>()?,
            h: decoded.dim(1),
            w: decoded.dim(2),
        })
    }
}

impl DecodedTile {
    /// Blends from the end of `other` to its own values, over `fade` lines or columns, or as many as both have.
    fn fade_from(&mut self, other: &Self, side: TileEdge, fade: usize, c: usize) {
        let pictures = self.values.len() / (self.h * self.w * c);
        let (fade, lines, columns) = match side {
            TileEdge::Above => {
                let fade = fade.min(self.h).min(other.h);
                (fade, fade, self.w.min(other.w))
            }
            TileEdge::Left => {
                let fade = fade.min(self.w).min(other.w);
                (fade, self.h.min(other.h), fade)
            }
        };
        for (picture, y) in (0..pictures).flat_map(|picture| (0..lines).map(move |y| (picture, y)))
        {
            for x in 0..columns {
                let (from_y, from_x, at) = match side {
                    TileEdge::Above => (other.h - fade + y, x, y),
                    TileEdge::Left => (y, other.w - fade + x, x),
                };
                let from = ((picture * other.h + from_y) * other.w + from_x) * c;
                let to = ((picture * self.h + y) * self.w + x) * c;
                let share = at as f64 / fade as f64;
                let (old, new) = ((1.0 - share) as f32, share as f32);
                for (to, from) in (self.values[to..to + c].iter_mut()).zip(&other.values[from..]) {
                    *to = from * old + *to * new;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(h: usize, w: usize, value: f32) -> DecodedTile {
        DecodedTile {
            values: vec![value; h * w],
            h,
            w,
        }
    }

    #[test]
    fn fading_starts_at_the_neighbour_and_ends_before_the_tile() {
        let mut below = tile(4, 2, 1.0);
        below.fade_from(&tile(6, 2, 0.0), TileEdge::Above, 2, 1);
        assert_eq!(below.values, [0., 0., 0.5, 0.5, 1., 1., 1., 1.]);
        let mut right = tile(1, 3, 1.0);
        right.fade_from(&tile(1, 2, 0.0), TileEdge::Left, 8, 1);
        assert_eq!(right.values, [0., 0.5, 1.]);
    }
}
