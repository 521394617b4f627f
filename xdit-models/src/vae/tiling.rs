//! Decoding in overlapping tiles (diffusers `models/autoencoders/autoencoder_kl.py`: `AutoencoderKL.tiled_decode`).
//!
//! Shapes: b images, h and w pixels, c channels, channels last.

use xdit_kernels::{DType, Tensor, TensorMut, View, elementwise, layout, reserved};

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
struct DecodedTile(TensorMut);

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
        let device = latents_bhwc.device();
        let mut out = TensorMut::unfilled([b, height, width, c], DType::F32, device)?;
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
                    tile.fade_from(above, TileEdge::Above, fade)?;
                }
                if let Some(left) = row.last() {
                    tile.fade_from(left, TileEdge::Left, fade)?;
                }
                // The part that the next tiles do not blend.
                let [rows, columns] = tile.size().map(|n| n.min(step * scale));
                let part = tile.0.view().narrow(1, 0, rows)?.narrow(2, 0, columns)?;
                let place = [(1, y * scale, rows), (2, x * scale, columns)];
                layout::copy_into(part, out.part(&place)?)?;
                row.push(tile);
            }
            above = row;
        }
        Ok(out.freeze()?)
    }

    fn tile(&self, latents_bhwc: View<'_>, alone: &Whole) -> Result<DecodedTile> {
        let decoded = self.forward_band(&latents_bhwc.to_tensor()?, alone, &mut ())?;
        DecodedTile::of(&decoded)
    }
}

impl DecodedTile {
    fn of(decoded: &Tensor) -> Result<Self> {
        let mut tile = TensorMut::unfilled(decoded.shape(), DType::F32, decoded.device())?;
        layout::copy_into(decoded, tile.part(&[])?)?;
        Ok(Self(tile.filled()?))
    }

    /// Lines and columns.
    fn size(&self) -> [usize; 2] {
        let view = self.0.view();
        [view.dim(1), view.dim(2)]
    }

    /// Blends from the end of `other` to its own values, over `fade` lines or columns, or as many as both have.
    fn fade_from(&mut self, other: &Self, side: TileEdge, fade: usize) -> Result<()> {
        let ([h, w], [other_h, other_w]) = (self.size(), other.size());
        let (fade, lines, columns) = match side {
            TileEdge::Above => {
                let fade = fade.min(h).min(other_h);
                (fade, fade, w.min(other_w))
            }
            TileEdge::Left => {
                let fade = fade.min(w).min(other_w);
                (fade, h.min(other_h), fade)
            }
        };
        let (from_line, from_column) = match side {
            TileEdge::Above => (other_h - fade, 0),
            TileEdge::Left => (0, other_w - fade),
        };
        let from = other.0.view().narrow(1, from_line, lines)?;
        let from = from.narrow(2, from_column, columns)?;
        let to = self.0.view().narrow(1, 0, lines)?.narrow(2, 0, columns)?;
        let share = |line: usize, column: usize| match side {
            TileEdge::Above => line as f64 / fade as f64,
            TileEdge::Left => column as f64 / fade as f64,
        };
        let shares = |of: fn(f64) -> f32| -> xdit_kernels::Result<Tensor> {
            let c = to.dim(3);
            // No more than the elements of `to`.
            let mut shares = reserved("shares of tiles", lines * columns * c)?;
            for line in 0..lines {
                for column in 0..columns {
                    shares.extend(std::iter::repeat_n(of(share(line, column)), c));
                }
            }
            Tensor::from_slice(&shares, [lines, columns, c], to.device())
        };
        let old = elementwise::mul(from, &shares(|share| (1.0 - share) as f32)?)?;
        let new = elementwise::mul(to, &shares(|share| share as f32)?)?;
        let place = self.0.view_mut().narrow(1, 0, lines)?;
        let place = place.narrow(2, 0, columns)?;
        Ok(elementwise::add_into(&old, &new, place)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    fn tile(h: usize, w: usize, value: f32) -> DecodedTile {
        let values = vec![value; h * w];
        let values = Tensor::from_slice(&values, [1, h, w, 1], &Device::cpu()).unwrap();
        DecodedTile::of(&values).unwrap()
    }

    #[test]
    fn fading_starts_at_the_neighbour_and_ends_before_the_tile() {
        let values = |tile: DecodedTile| tile.0.freeze().to_vec_blocking::<f32>().unwrap();
        let mut below = tile(4, 2, 1.0);
        let above = tile(6, 2, 0.0);
        below.fade_from(&above, TileEdge::Above, 2).unwrap();
        assert_eq!(values(below), [0., 0., 0.5, 0.5, 1., 1., 1., 1.]);
        let mut right = tile(1, 3, 1.0);
        let left = tile(1, 2, 0.0);
        right.fade_from(&left, TileEdge::Left, 8).unwrap();
        assert_eq!(values(right), [0., 0.5, 1.]);
    }
}
