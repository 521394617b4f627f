//! Paths inside a pipeline. Every name from an index, a list of files or a caller passes this check.

#[cfg(feature = "hub")]
use std::path::Path;

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;
/// The longest part of a path, in bytes, in common file systems.
const MAX_PART: usize = 255;
/// The largest number of parts. A file of a pipeline has two.
const MAX_PARTS: usize = 64;

/// Checks that `path` leads from the folder of a pipeline to a file inside it, on every system: parts that are valid names,
/// separated by `/`.
///
/// # Errors
/// A description of the problem, which follows the word "it".
pub(crate) fn check(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.len() > MAX_PATH {
        return Err("is longer than 4096 bytes");
    }
    if path.contains(char::is_control) {
        return Err("has a control character in it");
    }
    if path.contains('\\') {
        return Err("has a backslash in it");
    }
    if path.starts_with('/') {
        return Err("is an absolute path");
    }
    for part in path.split('/') {
        let mut chars = part.chars();
        match (chars.next(), chars.next()) {
            (None, _) => return Err("has a part without a name"),
            (Some(drive), Some(':')) if drive.is_ascii_alphabetic() => {
                return Err("names a drive");
            }
            _ => {}
        }
        if part == "." || part == ".." {
            return Err("leaves its folder");
        }
        if part.len() > MAX_PART {
            return Err("has a part of more than 255 bytes");
        }
    }
    if path.split('/').count() > MAX_PARTS {
        return Err("has more than 64 parts");
    }
    Ok(())
}

/// A checked path. Only the check creates it.
#[cfg(feature = "hub")]
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct InnerPath(Box<str>);

#[cfg(feature = "hub")]
impl InnerPath {
    /// `path`, if it is one inside a pipeline.
    ///
    /// # Errors
    /// As [`check`].
    pub(crate) fn new(path: &str) -> Result<Self, &'static str> {
        check(path)?;
        Ok(Self(path.into()))
    }

    /// Returns the path with `/` between its parts.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number of folders on the way to the file.
    pub(crate) fn depth(&self) -> usize {
        self.0.matches('/').count()
    }
}

#[cfg(feature = "hub")]
impl AsRef<Path> for InnerPath {
    fn as_ref(&self) -> &Path {
        Path::new(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn names_that_lead_out_are_refused() {
        let (long, deep) = ("x".repeat(256), "x/".repeat(64) + "x");
        let longest = format!("{}x", ("x".repeat(127) + "/").repeat(32));
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            ".",
            "../x",
            "../../../../X",
            "vae/../../x",
            "vae/..",
            "vae/.",
            "./vae",
            "vae//config.json",
            "vae/",
            "a\\b",
            "..\\x",
            "C:\\x",
            "C:x",
            "vae/c:x",
            "a\0b",
            "a\nb",
            "a\u{1b}[31m",
            "a\u{85}b",
            &long,
            &deep,
            &longest,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_files_pass() {
        let (long, deep) = ("x".repeat(255), "x/".repeat(63) + "x");
        for good in [
            "model_index.json",
            "vae/diffusion_pytorch_model.safetensors",
            "with a space/why?#%.json",
            "…/Größe 大.json",
            ".gitattributes",
            "..a/b..",
            "12:30.json",
            &long,
            &deep,
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_stays_inside(path in "[./\\\\a:C~ -]{0,12}") {
            if check(&path).is_ok() {
                let joined = Path::new("/root/folder").join(&path);
                prop_assert!(joined.starts_with("/root/folder") && joined != Path::new("/root/folder"));
                prop_assert!(Path::new(&path).components().all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
