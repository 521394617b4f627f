//! Images as PNG files.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::image::Image;
use crate::error::{Error, Result};

impl Image {
    /// Writes the image to a PNG file. An existing file of that name is replaced; if the name is a link, the file that it points
    /// to is. The image is written under a temporary name in the same folder and renamed when it is complete, so that no reader
    /// ever sees a part of it, and an error leaves the old file as it was.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a name that does not end in `.png`, and [`Error::Io`], which names the path.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::Image;
    /// let folder = tempfile::tempdir()?;
    /// let image = Image { width: 2, height: 1, rgb: vec![255, 0, 0, 0, 0, 255] };
    /// image.save(folder.path().join("red-blue.png"))?;
    /// let error = image.save("red-blue.jpg").unwrap_err();
    /// assert_eq!(error.to_string(), "`path` = red-blue.jpg: must be a name that ends in .png; images are written as PNG only");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let is_png = |ending: &std::ffi::OsStr| ending.eq_ignore_ascii_case("png");
        if !path.extension().is_some_and(is_png) {
            return Err(Error::invalid(
                "path",
                path.display(),
                "a name that ends in .png; images are written as PNG only",
            ));
        }
        self.replace(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        let target = replaceable(path)?;
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            let reason = format!("there is no folder {}", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".xdit-").suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any new file (the umask applies): tempfile's own default lets only the owner read.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        // The error of `tempfile_in` names the temporary file, which means nothing to the caller.
        let file = builder
            .tempfile_in(folder)
            .map_err(|error| io::Error::from(error.kind()))?;
        let mut buffer = BufWriter::new(&file);
        self.write_png(&mut buffer, &[])?;
        buffer.flush()?;
        drop(buffer);
        // If this fails, the temporary file is removed.
        file.persist(&target).map_err(|error| error.error)?;
        Ok(())
    }

    /// Writes the image as a PNG, with `texts` as text chunks: pairs of a keyword (1 to 79 characters of Latin-1) and a text.
    ///
    /// # Errors
    /// Errors of `file`. [`InvalidInput`](io::ErrorKind::InvalidInput) for an image that PNG cannot store: one without pixels, one
    /// with a side above 2³¹ − 1, one whose number of values does not fit its size; or for a keyword that PNG does not allow.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::Image;
    /// let image = Image { width: 1, height: 1, rgb: vec![0; 3] };
    /// let mut png = Vec::new();
    /// image.write_png(&mut png, &[("Comment", "a black dot")])?;
    /// assert!(png.starts_with(b"\x89PNG"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write_png(&self, file: impl Write, texts: &[(&str, &str)]) -> io::Result<()> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
        let size = |pixels: usize| {
            u32::try_from(pixels)
                .map_err(|_| invalid(format!("{pixels} pixels are too many for a PNG")))
        };
        let (width, height) = (size(self.width)?, size(self.height)?);
        let values = self
            .width
            .checked_mul(self.height)
            .and_then(|n| n.checked_mul(3));
        if values != Some(self.rgb.len()) {
            let (found, expected) = (self.rgb.len(), format!("{width}×{height}×3"));
            return Err(invalid(format!(
                "{expected} values expected, found {found}"
            )));
        }
        let failed = |error: png::EncodingError| match error {
            png::EncodingError::IoError(error) => error,
            other => invalid(other.to_string()),
        };
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (keyword, text) in texts {
            let (keyword, text) = ((*keyword).to_owned(), (*text).to_owned());
            // tEXt is Latin-1. Most readers support it, so iTXt (UTF-8) is used only if necessary.
            match text.is_ascii() {
                true => encoder.add_text_chunk(keyword, text),
                false => encoder.add_itxt_chunk(keyword, text),
            }
            .map_err(failed)?;
        }
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.rgb).map_err(failed)?;
        writer.finish().map_err(failed)
    }
}

/// Returns the file that a new file `path` would replace, whether it exists or not. An error if that is not a regular file:
/// renaming over a device, for example, would replace it.
fn replaceable(path: &Path) -> io::Result<PathBuf> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let target = match is_link {
        true => fs::canonicalize(path)?,
        false => path.to_owned(),
    };
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
    match fs::metadata(&target) {
        Ok(found) if found.is_dir() => wrong("is a folder"),
        Ok(found) if !found.is_file() => wrong("is not a regular file"),
        _ => Ok(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(shade: u8) -> Image {
        let (width, height) = (5, 3);
        let rgb = (0..45).map(|i| shade.wrapping_add(i)).collect();
        Image { width, height, rgb }
    }

    /// What is in a PNG file: its size, its values and its texts.
    fn read(bytes: &[u8]) -> (Image, Vec<String>) {
        let decoder = png::Decoder::new(io::Cursor::new(bytes));
        let mut reader = decoder.read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        reader.finish().unwrap();
        let info = reader.info();
        let (width, height) = (info.width as usize, info.height as usize);
        let latin = info.uncompressed_latin1_text.iter();
        let utf8 = info.utf8_text.iter();
        let texts = latin.map(|chunk| chunk.text.clone());
        let texts = texts.chain(utf8.map(|chunk| chunk.get_text().unwrap()));
        (Image { width, height, rgb }, texts.collect())
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_saved_image_has_the_same_pixels_and_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.PNG"] {
            let path = folder.path().join(name);
            for shade in [7, 200] {
                image(shade).save(&path).unwrap();
                assert_eq!(read(&fs::read(&path).unwrap()).0, image(shade));
            }
        }
        assert_eq!(names(folder.path()), ["a.png", "b.PNG"]);
    }

    #[test]
    fn texts_are_kept_in_any_script() {
        let mut png = Vec::new();
        let texts = [("a", "plain"), ("b", "ein Kreis, größer: 圆")];
        image(0).write_png(&mut png, &texts).unwrap();
        assert_eq!(
            read(&png),
            (image(0), texts.map(|(_, text)| text.to_owned()).into())
        );
        let long = "k".repeat(80);
        let error = image(0).write_png(&mut png, &[(&long, "x")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }

    #[test]
    fn what_cannot_be_written_is_named_and_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("old.png");
        image(1).save(&old).unwrap();
        let wrong = Image {
            rgb: vec![0; 44],
            ..image(0)
        };
        let message = wrong.save(&old).unwrap_err().to_string();
        let expected = format!("{}: 5×3×3 values expected, found 44", old.display());
        assert_eq!(message, expected);
        let empty = Image {
            width: 0,
            height: 0,
            rgb: Vec::new(),
        };
        assert!(empty.save(&old).is_err());
        assert_eq!(read(&fs::read(&old).unwrap()).0, image(1));

        fs::create_dir(folder.path().join("folder.png")).unwrap();
        let cases = [
            ("a", "`path` = ", "must be a name that ends in .png"),
            ("a.jpg", "`path` = ", "must be a name that ends in .png"),
            ("no/a.png", "", "there is no folder "),
            ("old.png/a.png", "", "there is no folder "),
            ("folder.png", "", "is a folder"),
        ];
        for (name, before, reason) in cases {
            let path = folder.path().join(name);
            let message = image(0).save(&path).unwrap_err().to_string();
            let start = format!("{before}{}: {reason}", path.display());
            assert!(message.starts_with(&start), "{message}");
        }
        assert_eq!(names(folder.path()), ["folder.png", "old.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_devices_stay_and_others_may_read() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        image(1).save(at("real.png")).unwrap();
        symlink("real.png", at("link.png")).unwrap();
        image(2).save(at("link.png")).unwrap();
        assert_eq!(read(&fs::read(at("real.png")).unwrap()).0, image(2));
        symlink("/dev/null", at("null.png")).unwrap();
        let message = image(2).save(at("null.png")).unwrap_err().to_string();
        assert!(
            message.ends_with("null.png: is not a regular file"),
            "{message}"
        );
        symlink("nowhere.png", at("broken.png")).unwrap();
        let message = image(2).save(at("broken.png")).unwrap_err().to_string();
        assert!(message.contains("broken.png: "), "{message}");
        fs::write(at("plain"), b"").unwrap();
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode();
        assert_eq!(mode("real.png"), mode("plain"));
    }
}
