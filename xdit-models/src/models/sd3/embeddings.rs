//! Image tokens as an SD3 transformer reads them, and where they stand (diffusers `models/embeddings.py`, `PatchEmbed` with
//! `pos_embed_max_size`).
//!
//! Shapes: b images, l image tokens, c channels.

use xdit_kernels::attention::Segment;
use xdit_kernels::linear::Linear;
use xdit_kernels::{Tensor, elementwise};

use super::Sd3Config;
use crate::error::Result;
use crate::files::weights::Scope;
use crate::layers::{Packing, rows_of};

/// A convolution whose stride is its kernel size, and therefore a linear layer of tokens; and a table of positions.
#[derive(Debug)]
pub(super) struct PatchEmbed {
    pub(super) proj: Linear,
    /// `[n · n, c]`, as it lies in the file.
    table: Tensor,
}

impl PatchEmbed {
    pub(super) fn load(
        config: &Sd3Config,
        scope: &Scope<'_>,
        packing: &mut Packing<'_>,
    ) -> Result<Self> {
        let (c, side) = (config.hidden_size(), config.pos_embed_max_size);
        let shape = [c, config.in_channels, config.patch_size];
        let table = packing.table(scope, "pos_embed", &[1, side * side, c])?;
        Ok(Self {
            proj: packing.patches(&scope.child("proj"), shape)?,
            table: table.reshape([side * side, c])?,
        })
    }

    /// Converts latent tokens `[b, l, p·p·in_channels]` to tokens of the stream, `[b, l, c]`.
    pub(super) fn forward(&self, latents_blc: &Tensor, positions: &Sd3Positions) -> Result<Tensor> {
        let table = self.table.to_device(latents_blc.device())?;
        let rows_lc = rows_of(&table, &positions.rows)?;
        let image_blc = self.proj.forward(latents_blc)?;
        Ok(elementwise::add(&image_blc, &rows_lc)?)
    }
}

/// The positions of tokens: the rows of the position table that are added to image tokens, and the rows of the streams that all
/// tokens are. Text tokens come first, without a position, then the image tokens of one image size.
///
/// # Examples
/// ```
/// use xdit_models::ConfigFile;
/// use xdit_models::sd3::{Sd3Config, Sd3Positions};
/// let config = Sd3Config::read(&ConfigFile::parse("config.json", br#"{"pos_embed_max_size": 6}"#)?)?;
/// let positions = Sd3Positions::new(&config, 333, 2, 4)?;
/// assert_eq!(positions.token_count(), 333 + 2 * 4);
/// // The middle of a table of 6 rows and 6 columns: rows 2 and 3, columns 1 to 4.
/// assert_eq!(positions.table_rows(), [13, 14, 15, 16, 19, 20, 21, 22]);
/// // An image has at most 6 × 6 tokens.
/// assert!(Sd3Positions::new(&config, 333, 7, 4).is_err());
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sd3Positions {
    rows: Vec<u32>,
    text_len: usize,
    segments: Vec<Segment>,
}

impl Sd3Positions {
    /// Creates the positions of `text_len` text tokens and an image of `rows` × `columns` tokens (`cropped_pos_embed`).
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) for more rows or columns than the position table has.
    pub fn new(config: &Sd3Config, text_len: usize, rows: usize, columns: usize) -> Result<Self> {
        let side = config.pos_embed_max_size;
        if rows.max(columns) > side {
            return Err(xdit_kernels::Error::shape(
                "sd3 positions",
                format!("at most {side} × {side} tokens (pos_embed_max_size)"),
                [rows, columns],
            )
            .into());
        }
        let (top, left) = ((side - rows) / 2, (side - columns) / 2);
        let places = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (top + row) * side + left + column));
        Ok(Self {
            // At most 4096 × 4096.
            rows: places.map(|place| place as u32).collect(),
            text_len,
            segments: [text_len, rows * columns]
                .into_iter()
                .enumerate()
                .map(|(stream, total)| Segment {
                    stream,
                    start: 0,
                    len: total,
                    total,
                })
                .collect(),
        })
    }

    /// Returns the positions of some of the tokens: rows of the text, if there are any, and of parts of the image. Each part is
    /// a stream (the image as a whole too), with the position of its first token in the image.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if these rows do not exist.
    pub fn part(&self, text: Option<Segment>, image: &[(usize, Segment)]) -> Result<Self> {
        let mut rows = Vec::new();
        for (place, part) in image {
            let start = place + part.start;
            let tokens = self.rows.get(start..start + part.len).ok_or_else(|| {
                let expected = format!("rows of {} image tokens", self.rows.len());
                xdit_kernels::Error::shape("sd3 positions", expected, [start, part.len])
            })?;
            rows.extend_from_slice(tokens);
        }
        Ok(Self {
            rows,
            text_len: text.map_or(0, |text| text.len),
            segments: text
                .into_iter()
                .chain(image.iter().map(|(_, rows)| *rows))
                .collect(),
        })
    }

    /// Returns the row of the position table for each image token.
    #[must_use]
    pub fn table_rows(&self) -> &[u32] {
        &self.rows
    }

    /// Returns the number of tokens of text and image together.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.text_len + self.rows.len()
    }

    /// Returns the number of text tokens.
    #[must_use]
    pub fn text_len(&self) -> usize {
        self.text_len
    }

    /// Returns the rows of the streams that the tokens are.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the segments of the image.
    pub(super) fn image_segments(&self) -> &[Segment] {
        let text = self.segments.iter().take_while(|part| part.stream == 0);
        &self.segments[text.count()..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;

    #[test]
    fn parts_keep_their_places_in_the_image() {
        let json = br#"{"pos_embed_max_size": 5}"#;
        let config = Sd3Config::read(&ConfigFile::parse("c", json).unwrap()).unwrap();
        let whole = Sd3Positions::new(&config, 3, 4, 3).unwrap();
        // Odd margins: one fewer row above than below, one column on either side.
        assert_eq!(whole.table_rows()[..4], [1, 2, 3, 6]);
        assert_eq!(whole.image_segments(), &whole.segments()[1..]);
        let segment = |stream, start, len, total| Segment {
            stream,
            start,
            len,
            total,
        };
        // Rows 2 and 3 are a patch of six tokens; this rank has the last two.
        let patch = (6, segment(2, 4, 2, 6));
        let part = whole.part(None, &[patch]).unwrap();
        assert_eq!(part.table_rows(), [17, 18]);
        assert_eq!((part.text_len(), part.token_count()), (0, 2));
        assert_eq!(part.image_segments(), [patch.1]);
        let text = segment(0, 1, 2, 3);
        let part = whole.part(Some(text), &[patch]).unwrap();
        assert_eq!((part.text_len(), part.token_count()), (2, 4));
        assert_eq!(part.segments(), [text, patch.1]);
        assert!(whole.part(None, &[(12, segment(1, 0, 1, 12))]).is_err());
    }
}
