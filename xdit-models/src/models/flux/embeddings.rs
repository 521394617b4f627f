//! Where the tokens of a Flux transformer stand, as rotary tables (diffusers `models/embeddings.py`,
//! `pipelines/flux/pipeline_flux.py`).
//!
//! Shapes: l tokens, d head dim.

use xdit_kernels::{Device, attention::Segment};
use xdit_kernels::{Tensor, View, rope};

use crate::error::Result;

/// Base of the rotary frequencies.
const THETA: f64 = 10_000.0;

/// The positions of tokens: the cosines and sines that rotate their queries and keys, and the rows of the streams that they
/// are. Text tokens come first, then the image tokens of one image size.
///
/// # Examples
/// ```
/// use xdit_kernels::Device;
/// use xdit_models::flux::RotaryTables;
/// let tables = RotaryTables::new(&[16, 56, 56], 24, 16, 16, &Device::cpu())?;
/// assert_eq!(tables.cos().shape(), [24 + 16 * 16, 128]);
/// // Text is at position 0, so it is not rotated.
/// assert!(tables.cos().narrow(0, 0, 24)?.to_vec_blocking::<f32>()?.iter().all(|c| *c == 1.0));
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RotaryTables {
    cos_ld: Tensor,
    sin_ld: Tensor,
    text_len: usize,
    segments: Vec<Segment>,
}

impl RotaryTables {
    /// Creates the tables of `text_len` text tokens and an image of `rows` × `columns` tokens (`FluxPosEmbed`, whose ids are 0
    /// for text and (0, row, column) for the image).
    ///
    /// # Shapes
    /// Both tables are f32 `[text_len + rows · columns, sum of axes_dims]`. Each frequency occurs twice in succession.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if there is no memory for them.
    pub fn new(
        axes_dims: &[usize; 3],
        text_len: usize,
        rows: usize,
        columns: usize,
        device: &Device,
    ) -> Result<Self> {
        let text = std::iter::repeat_n([0.0; 3], text_len);
        let image = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| [0.0, row as f32, column as f32]));
        let ids: Vec<[f32; 3]> = text.chain(image).collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for (axis, dims) in axes_dims.iter().enumerate().filter(|(_, dims)| **dims > 0) {
            let positions: Vec<f32> = ids.iter().map(|id| id[axis]).collect();
            let table = rope::rope_table(&positions, *dims, THETA, device)?;
            cos.push(table.0);
            sin.push(table.1);
        }
        let join =
            |parts: &[Tensor]| Tensor::cat(&parts.iter().map(Tensor::view).collect::<Vec<_>>(), 1);
        Ok(Self {
            cos_ld: join(&cos)?,
            sin_ld: join(&sin)?,
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

    /// Returns the tables of some of the tokens: rows of the text, if there are any, and of parts of the image. Each part is a
    /// stream (the image as a whole too), with the position of its first token in the image.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if these rows do not exist.
    pub fn part(&self, text: Option<Segment>, image: &[(usize, Segment)]) -> Result<Self> {
        let text_rows = text.map(|text| (text.start, text.len));
        let image_rows = image
            .iter()
            .map(|(place, rows)| (self.text_len + place + rows.start, rows.len));
        let runs: Vec<_> = text_rows.into_iter().chain(image_rows).collect();
        let rows = |table: &Tensor| {
            let runs = runs
                .iter()
                .map(|(start, len)| table.view().narrow(0, *start, *len))
                .collect::<xdit_kernels::Result<Vec<_>>>()?;
            Tensor::cat(&runs, 0)
        };
        Ok(Self {
            cos_ld: rows(&self.cos_ld)?,
            sin_ld: rows(&self.sin_ld)?,
            text_len: text.map_or(0, |text| text.len),
            segments: text
                .into_iter()
                .chain(image.iter().map(|(_, rows)| *rows))
                .collect(),
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

    /// Returns the number of tokens of text and image together.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.cos_ld.dim(0)
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

    /// Returns rows `start..start + len` of both tables.
    pub(crate) fn rows(&self, start: usize, len: usize) -> Result<(View<'_>, View<'_>)> {
        Ok((
            self.cos_ld.view().narrow(0, start, len)?,
            self.sin_ld.view().narrow(0, start, len)?,
        ))
    }
}
