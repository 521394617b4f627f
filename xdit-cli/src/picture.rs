//! PNG files: written with their record, read back with it.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::Path;

use crate::failure::Failure;
use crate::partial::system_reason;
use crate::record::RunRecord;

/// The key of the JSON record.
const RECORD_KEY: &str = "xdit";
/// The key of AUTOMATIC1111's text.
const PARAMETERS_KEY: &str = "parameters";
/// No image that this program wrote has more bytes of pixels or text than this.
const MOST_BYTES: usize = 1 << 32;

/// An 8-bit RGB image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Row by row, three bytes a pixel.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Writes the PNG, with the record in it if there is one.
    ///
    /// # Errors
    /// What the file system says, or that the size does not fit PNG.
    pub(crate) fn write(&self, file: impl Write, record: Option<&RunRecord>) -> Result<(), String> {
        let size =
            |n: usize| u32::try_from(n).map_err(|_| format!("{n} pixels are too many for a PNG"));
        let mut encoder = png::Encoder::new(file, size(self.width)?, size(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        if let Some(record) = record {
            for (key, text) in [
                (PARAMETERS_KEY, record.parameters()),
                (RECORD_KEY, record.to_json()),
            ] {
                // tEXt is Latin-1; its readers are the most, so iTXt (UTF-8) is used only where it must be.
                let added = match text.is_ascii() {
                    true => encoder.add_text_chunk(key.into(), text),
                    false => encoder.add_itxt_chunk(key.into(), text),
                };
                added.map_err(|e| e.to_string())?;
            }
        }
        let reason = |e: png::EncodingError| match e {
            png::EncodingError::IoError(e) => system_reason(&e),
            other => other.to_string(),
        };
        let mut writer = encoder.write_header().map_err(reason)?;
        writer.write_image_data(&self.rgb).map_err(reason)?;
        writer.finish().map_err(reason)
    }

    /// The picture in `path` and the record of its run.
    ///
    /// # Errors
    /// [`Failure::Input`] when there is no such file, [`Failure::NoRecord`] when it is not a PNG that this program
    /// wrote with its metadata.
    pub(crate) fn read(path: &Path) -> Result<(Self, RunRecord), Failure> {
        let file = File::open(path).map_err(|e| Failure::input(path, system_reason(&e)))?;
        Self::decode(BufReader::new(file)).map_err(|reason| Failure::no_record(path, reason))
    }

    fn decode(file: impl BufRead + Seek) -> Result<(Self, RunRecord), String> {
        let decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: MOST_BYTES });
        let mut reader = decoder.read_info().map_err(|e| format!("not a PNG: {e}"))?;
        let info = reader.info();
        if (info.color_type, info.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
            return Err("not an image that xdit-cli wrote: 8-bit RGB is expected".into());
        }
        let (width, height) = (info.width as usize, info.height as usize);
        let length = reader
            .output_buffer_size()
            .filter(|&length| length <= MOST_BYTES)
            .ok_or("more pixels than xdit-cli writes")?;
        let mut rgb = Vec::new();
        rgb.try_reserve_exact(length).map_err(|e| e.to_string())?;
        rgb.resize(length, 0);
        reader
            .next_frame(&mut rgb)
            .map_err(|e| format!("damaged PNG: {e}"))?;
        reader.finish().map_err(|e| format!("damaged PNG: {e}"))?;
        let info = reader.info();
        let latin = info
            .uncompressed_latin1_text
            .iter()
            .find(|chunk| chunk.keyword == RECORD_KEY);
        let unicode = info
            .utf8_text
            .iter()
            .find(|chunk| chunk.keyword == RECORD_KEY);
        let json = match (latin, unicode) {
            (Some(chunk), _) => chunk.text.clone(),
            (None, Some(chunk)) => chunk.get_text().map_err(|e| format!("damaged PNG: {e}"))?,
            (None, None) => {
                return Err("records no run: not written by xdit-cli, written with --no-metadata, or saved again by \
                            another program"
                    .into());
            }
        };
        Ok((Self { width, height, rgb }, RunRecord::parse(&json)?))
    }
}

/// How two pictures of one size differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// Bytes that are not equal.
    pub bytes: usize,
    /// The greatest difference of a byte.
    pub max_abs: u8,
    /// Peak signal to noise ratio in dB; infinite for equal pictures.
    pub psnr: f64,
}

impl Difference {
    /// Between two pictures; none if their sizes differ.
    pub(crate) fn between(a: &Picture, b: &Picture) -> Option<Self> {
        if (a.width, a.height, a.rgb.len()) != (b.width, b.height, b.rgb.len()) {
            return None;
        }
        let deltas = || a.rgb.iter().zip(&b.rgb).map(|(x, y)| x.abs_diff(*y));
        let squares: u64 = deltas().map(|d| u64::from(d).pow(2)).sum();
        let mean = squares as f64 / a.rgb.len().max(1) as f64;
        Some(Self {
            bytes: deltas().filter(|&d| d != 0).count(),
            max_abs: deltas().max().unwrap_or(0),
            psnr: 10. * (255f64.powi(2) / mean).log10(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn picture() -> Picture {
        Picture {
            width: 16,
            height: 8,
            rgb: (0..16 * 8 * 3).map(|i| (i * 7 % 256) as u8).collect(),
        }
    }

    fn read_back(bytes: &[u8]) -> Result<(Picture, RunRecord), String> {
        Picture::decode(std::io::Cursor::new(bytes))
    }

    #[test]
    fn pixels_and_record_survive() {
        let mut ascii = record();
        ascii.request.prompt = vec!["plain".into(), "text".into()];
        for record in [record(), ascii] {
            let mut bytes = Vec::new();
            picture().write(&mut bytes, Some(&record)).unwrap();
            assert_eq!(read_back(&bytes).unwrap(), (picture(), record));
        }
    }

    #[test]
    fn a_megabyte_of_prompt_survives() {
        let mut long = record();
        long.request.prompt = vec!["wörd ".repeat(200_000)];
        let mut bytes = Vec::new();
        picture().write(&mut bytes, Some(&long)).unwrap();
        assert_eq!(read_back(&bytes).unwrap().1, long);
    }

    #[test]
    fn what_is_no_record_is_said() {
        let mut bytes = Vec::new();
        picture().write(&mut bytes, None).unwrap();
        assert!(read_back(&bytes).unwrap_err().contains("--no-metadata"));
        assert!(read_back(b"GIF89a").unwrap_err().contains("not a PNG"));
        picture().write(&mut Vec::new(), Some(&record())).unwrap();
        let half = &bytes[..bytes.len() / 2];
        assert!(read_back(half).is_err());
        let failure = Picture::read(Path::new("/no/such.png")).unwrap_err();
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn differences() {
        let (a, mut b) = (picture(), picture());
        let same = Difference::between(&a, &b).unwrap();
        assert_eq!((same.bytes, same.max_abs, same.psnr), (0, 0, f64::INFINITY));
        b.rgb[5] = b.rgb[5].wrapping_add(3);
        let other = Difference::between(&a, &b).unwrap();
        assert_eq!((other.bytes, other.max_abs), (1, 3));
        // 10 log10(255² · 384 / 9), one byte of 16·8·3 off by 3.
        assert!((other.psnr - 64.43).abs() <= 0.01, "{}", other.psnr);
        b.width = 8;
        assert_eq!(Difference::between(&a, &b), None);
    }
}
