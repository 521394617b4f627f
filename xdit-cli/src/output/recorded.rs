//! Reads a picture with its record: the record at once, the pixels row by row, so that no size in the file costs memory.

use std::fs::{self, File};
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, DecodingError, Info, Limits, Reader};

use xdit_models::quote;

use crate::output::picture::RECORD_KEY;
use crate::output::record::RunRecord;
use crate::report::failure::Failure;
use crate::report::failure::system_reason;

/// The largest number of bytes of text, and of one row, in a PNG.
const MOST_BYTES: usize = 16 << 20;
/// The largest number of bytes of a record that another program has compressed.
const MOST_UNPACKED: usize = 4 << 20;
/// The largest expansion by deflate: 258 bytes in two bits (RFC 1951, section 3.2.5).
const MOST_DEFLATED: u128 = 1032;

/// A PNG that this program wrote, with its metadata.
#[derive(Debug)]
pub(crate) struct Recorded {
    path: PathBuf,
    file: File,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// The record of the run.
    pub record: RunRecord,
}

impl Recorded {
    /// Opens the picture in `path`. Reads none of its pixels.
    ///
    /// # Errors
    /// [`Failure::Input`] if the file does not exist, [`Failure::NoRecord`] if it is not a PNG that this program wrote with its
    /// metadata.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unreadable = |e| Failure::input(path, system_reason(&e));
        let no_record = |reason| Failure::no_record(path, reason);
        let meta = fs::metadata(path).map_err(unreadable)?;
        // A pipe cannot be read twice.
        if !meta.is_file() {
            return Err(Failure::input(path, "is not a regular file"));
        }
        let file = File::open(path).map_err(unreadable)?;
        let mut reader = reader(&file, false).map_err(|e| failed(path, "not a PNG", e))?;
        let info = reader.info();
        let (width, height) = (info.width as usize, info.height as usize);
        check(info, meta.len()).map_err(no_record)?;
        let mut json = record(info).map_err(no_record)?;
        if json.is_none() {
            // Texts may follow the pixels.
            reader
                .finish()
                .map_err(|e| failed(path, "damaged PNG", e))?;
            json = record(reader.info()).map_err(no_record)?;
        }
        let json = json.ok_or_else(|| {
            no_record(
                "records no run: not written by xdit-cli, written with --no-metadata, or saved again by another program"
                    .into(),
            )
        })?;
        drop(reader);
        let record = RunRecord::parse(&json).map_err(no_record)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            width,
            height,
            record,
        })
    }

    /// Passes each row of pixels to `row`, from the top, with three bytes per pixel.
    ///
    /// # Errors
    /// [`Failure::NoRecord`] if the file is damaged, [`Failure::Input`] if it cannot be read.
    pub(crate) fn each_row(&self, mut row: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut read = || {
            let mut reader = reader(&self.file, true)?;
            let size = (reader.info().width as usize, reader.info().height as usize);
            if size != (self.width, self.height) {
                return Err(DecodingError::IoError(
                    std::io::ErrorKind::InvalidData.into(),
                ));
            }
            while let Some(next) = reader.next_row()? {
                row(next.data());
            }
            reader.finish()
        };
        read().map_err(|e| failed(&self.path, "damaged PNG", e))
    }
}

/// Returns a reader of `file` from its start to the first pixels. It keeps or skips texts.
fn reader(file: &File, skips_text: bool) -> Result<Reader<BufReader<&File>>, DecodingError> {
    let mut file = file;
    file.rewind()?;
    let limits = Limits { bytes: MOST_BYTES };
    let mut decoder = Decoder::new_with_limits(BufReader::new(file), limits);
    decoder.set_ignore_text_chunk(skips_text);
    // Colour profiles are compressed, and not used here.
    decoder.set_ignore_iccp_chunk(true);
    decoder.read_info()
}

/// Refuses formats that this program does not write, and a size that does not fit `bytes` of file.
fn check(info: &Info<'_>, bytes: u64) -> Result<(), String> {
    let plain = (info.color_type, info.bit_depth) == (ColorType::Rgb, BitDepth::Eight);
    if !plain || info.interlaced || info.animation_control.is_some() {
        let expected = "8-bit RGB is expected, neither interlaced nor animated";
        return Err(format!("not an image that xdit-cli wrote: {expected}"));
    }
    let (width, height) = (u128::from(info.width), u128::from(info.height));
    // Each row begins with the number of its filter.
    if height * (1 + 3 * width) > MOST_DEFLATED * u128::from(bytes) {
        return Err(format!(
            "damaged PNG: {} cannot hold {width}×{height} pixels",
            quote::bytes(bytes)
        ));
    }
    Ok(())
}

/// Returns the JSON record among the texts that were read so far.
fn record(info: &Info<'_>) -> Result<Option<String>, String> {
    let unpacked = |e: DecodingError| match e {
        DecodingError::Format(_) => {
            format!(
                "damaged PNG: its compressed record is broken or larger than {}",
                quote::bytes(MOST_UNPACKED as u64)
            )
        }
        other => format!("damaged PNG: {other}"),
    };
    let mut latin = info.uncompressed_latin1_text.iter();
    if let Some(chunk) = latin.find(|chunk| chunk.keyword == RECORD_KEY) {
        return Ok(Some(chunk.text.clone()));
    }
    let mut unicode = info.utf8_text.iter();
    if let Some(chunk) = unicode.find(|chunk| chunk.keyword == RECORD_KEY) {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MOST_UNPACKED)
            .map_err(unpacked)?;
        return chunk.get_text().map(Some).map_err(unpacked);
    }
    let mut packed = info.compressed_latin1_text.iter();
    if let Some(chunk) = packed.find(|chunk| chunk.keyword == RECORD_KEY) {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MOST_UNPACKED)
            .map_err(unpacked)?;
        return chunk.get_text().map(Some).map_err(unpacked);
    }
    Ok(None)
}

/// Converts an error of the decoder: the file cannot be read, or is invalid.
fn failed(path: &Path, what: &str, error: DecodingError) -> Failure {
    let reason = match error {
        DecodingError::IoError(e) => match e.kind() {
            std::io::ErrorKind::UnexpectedEof => "it ends too soon".into(),
            std::io::ErrorKind::InvalidData => "it has changed meanwhile".into(),
            _ => return Failure::input(path, system_reason(&e)),
        },
        DecodingError::LimitsExceeded => {
            let most = quote::bytes(MOST_BYTES as u64);
            format!("more than {most} of text, or in a row of pixels")
        }
        other => other.to_string(),
    };
    Failure::no_record(path, format!("{what}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::picture::{tests::picture, write};
    use crate::output::record::tests::record;

    /// What is read of a file with these bytes.
    fn read(bytes: &[u8]) -> Result<(Vec<u8>, RunRecord), Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs::write(&path, bytes).unwrap();
        let recorded = Recorded::open(&path)?;
        let mut pixels = Vec::new();
        recorded.each_row(|row| pixels.extend_from_slice(row))?;
        assert_eq!((recorded.width, recorded.height), (16, 8));
        Ok((pixels, recorded.record))
    }

    fn reason(bytes: &[u8]) -> String {
        let failure = read(bytes).unwrap_err();
        assert_eq!(failure.exit_code(), 2, "{failure}");
        failure.to_string()
    }

    fn written(record: Option<&RunRecord>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&picture(), &mut bytes, record).unwrap();
        bytes
    }

    #[test]
    fn pixels_and_record_survive() {
        let (mut ascii, mut long) = (record(), record());
        ascii.request.prompt = vec!["plain".into(), "text".into()];
        long.request.prompt = vec!["wörd ".repeat(200_000)];
        for record in [record(), ascii, long] {
            let read = read(&written(Some(&record))).unwrap();
            assert_eq!(
                (read.0, read.1.to_json()),
                (picture().rgb, record.to_json())
            );
        }
    }

    #[test]
    fn records_that_another_program_has_moved_or_compressed() {
        let json = record().to_json();
        let mut latin = png::text_metadata::ZTXtChunk::new(RECORD_KEY, json.replace('❤', ""));
        let mut unicode = png::text_metadata::ITXtChunk::new(RECORD_KEY, json);
        latin.compress_text().unwrap();
        unicode.compress_text().unwrap();
        unicode.compressed = true;
        let write = |add: &dyn Fn(&mut png::Writer<&mut Vec<u8>>)| {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 16, 8);
            encoder.set_color(ColorType::Rgb);
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&picture().rgb).unwrap();
            // After the pixels.
            add(&mut writer);
            writer.finish().unwrap();
            bytes
        };
        let (_, read_unicode) = read(&write(&|w| w.write_text_chunk(&unicode).unwrap())).unwrap();
        assert_eq!(read_unicode.to_json(), record().to_json());
        let (pixels, _) = read(&write(&|w| w.write_text_chunk(&latin).unwrap())).unwrap();
        assert_eq!(pixels, picture().rgb);
        let bomb = "x".repeat(MOST_UNPACKED + 1);
        let mut bomb = png::text_metadata::ZTXtChunk::new(RECORD_KEY, bomb);
        bomb.compress_text().unwrap();
        let bomb = write(&|w| w.write_text_chunk(&bomb).unwrap());
        assert!(bomb.len() < 100_000 && reason(&bomb).contains("larger than"));
    }

    #[test]
    fn what_is_no_record_is_said() {
        assert!(reason(&written(None)).contains("--no-metadata"));
        assert!(reason(b"GIF89a").contains("not a PNG"));
        assert!(reason(b"").contains("ends too soon"));
        let whole = written(Some(&record()));
        for length in [20, whole.len() / 2, whole.len() - 13] {
            let reason = reason(&whole[..length]);
            assert!(reason.contains("ends too soon"), "{length}: {reason}");
        }
        let mut damaged = whole.clone();
        let at = whole.len() - 20;
        damaged[at] ^= 1;
        assert!(reason(&damaged).contains("damaged PNG"));
        let missing = Recorded::open(Path::new("/no/such.png")).unwrap_err();
        assert_eq!(missing.exit_code(), 1);
        let device = Recorded::open(Path::new("/dev/null")).unwrap_err();
        assert_eq!(device.exit_code(), 1);
    }

    /// A chunk's checksum.
    fn crc32(bytes: &[u8]) -> [u8; 4] {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
            }
        }
        (!crc).to_be_bytes()
    }

    #[test]
    fn sizes_that_the_file_cannot_hold() {
        let whole = written(Some(&record()));
        for (width, height) in [
            (37_000, 38_000),
            (0x7fff_ffff, 0x7fff_ffff),
            (0x7fff_ffff, 1),
        ] {
            let mut large = whole.clone();
            large[16..20].copy_from_slice(&u32::to_be_bytes(width));
            large[20..24].copy_from_slice(&u32::to_be_bytes(height));
            // The header's checksum is that of the other size: the size itself must be what is refused with a right one.
            assert!(reason(&large).contains("CRC"), "{width}×{height}");
        }
        let bytes = [
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x90\x88\0\0\x94\x70\x08\x02\0\0\0".as_slice(),
            &crc32(b"IHDR\0\0\x90\x88\0\0\x94\x70\x08\x02\0\0\0"),
            b"\0\0\0\0IDAT\x35\xaf\x06\x1e",
        ];
        let bytes = bytes.concat();
        let reason = reason(&bytes);
        assert!(reason.contains("cannot hold 37000×38000"), "{reason}");
    }
}
