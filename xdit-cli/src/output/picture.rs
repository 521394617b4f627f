//! PNG files: writes them with their record, and compares two of them. [`crate::output::recorded`] reads them.

use std::io::Write;

use xdit_models::Image;

use crate::output::record::RunRecord;
use crate::report::failure::system_reason;

/// The key of the JSON record.
pub(crate) const RECORD_KEY: &str = "xdit";
/// The key of AUTOMATIC1111's text.
const PARAMETERS_KEY: &str = "parameters";

/// Writes an image as a PNG, with the record if there is one.
///
/// # Errors
/// An error of the file system, or a size that does not fit PNG.
pub(crate) fn write(
    image: &Image,
    file: impl Write,
    record: Option<&RunRecord>,
) -> Result<(), String> {
    let texts = record.map(|record| (record.parameters(), record.to_json()));
    let chunks = texts.as_ref().map(|(parameters, json)| {
        [
            (PARAMETERS_KEY, parameters.as_str()),
            (RECORD_KEY, json.as_str()),
        ]
    });
    let chunks = chunks.as_ref().map_or(&[][..], |chunks| &chunks[..]);
    image
        .write_png(file, chunks)
        .map_err(|error| match error.raw_os_error() {
            Some(_) => system_reason(&error),
            None => error.to_string(),
        })
}

/// The difference of two pictures of the same size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// The number of different bytes.
    pub bytes: usize,
    /// The largest difference of a byte.
    pub max_abs: u8,
    /// Peak signal to noise ratio in dB. Infinite for equal pictures.
    pub psnr: f64,
}

/// Compares two pictures of one size, row by row.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    bytes: usize,
    different: usize,
    max_abs: u8,
    squares: u64,
}

impl Comparison {
    /// Adds a row of both pictures.
    pub(crate) fn add(&mut self, a: &[u8], b: &[u8]) {
        for delta in a.iter().zip(b).map(|(x, y)| x.abs_diff(*y)) {
            self.different += usize::from(delta != 0);
            self.max_abs = self.max_abs.max(delta);
            self.squares += u64::from(delta).pow(2);
        }
        self.bytes += a.len().max(b.len());
    }

    /// Returns the difference of all rows.
    pub(crate) fn difference(&self) -> Difference {
        let mean = self.squares as f64 / self.bytes.max(1) as f64;
        Difference {
            bytes: self.different,
            max_abs: self.max_abs,
            psnr: 10. * (255f64.powi(2) / mean).log10(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn picture() -> Image {
        Image {
            width: 16,
            height: 8,
            rgb: (0..16 * 8 * 3).map(|i| (i * 7 % 256) as u8).collect(),
        }
    }

    #[test]
    fn differences() {
        let (a, mut b) = (picture(), picture());
        let between = |a: &Image, b: &Image| {
            let mut comparison = Comparison::default();
            let rows = |p: &Image| p.rgb.chunks(16 * 3).map(<[u8]>::to_vec).collect::<Vec<_>>();
            rows(a)
                .iter()
                .zip(rows(b))
                .for_each(|(a, b)| comparison.add(a, &b));
            comparison.difference()
        };
        let same = between(&a, &b);
        assert_eq!((same.bytes, same.max_abs, same.psnr), (0, 0, f64::INFINITY));
        b.rgb[5] = b.rgb[5].wrapping_add(3);
        let other = between(&a, &b);
        assert_eq!((other.bytes, other.max_abs), (1, 3));
        // 10 log10(255² · 384 / 9), one byte of 16·8·3 off by 3.
        assert!((other.psnr - 64.43).abs() <= 0.01, "{}", other.psnr);
    }
}
