//! Writes results to files, as pictures or tensors.

use std::io::Write as _;
use std::path::PathBuf;

use xdit_kernels::Tensor;

use crate::args::output::OutputFormat;
use crate::output::files::OutputPlan;
use crate::output::picture;
use crate::output::tensor_file::{self, Entry, EntryData};
use crate::report::failure::{self, Failure, system_reason};
use crate::run::draw::Drawn;

/// Writes the results of a run. Returns the names of the files.
pub(super) fn write(
    drawn: &Drawn,
    kind: OutputFormat,
    metadata: bool,
    plan: &OutputPlan,
) -> Result<Vec<PathBuf>, Failure> {
    let output = &drawn.output;
    match kind {
        OutputFormat::Png => output
            .images
            .iter()
            .enumerate()
            .map(|(index, image)| {
                let record = metadata.then(|| drawn.record_of(index));
                plan.write(index, |file| picture::write(image, file, record.as_ref()))
            })
            .collect(),
        OutputFormat::Latent => write_tensor(drawn, "latents", &output.latents, metadata, plan),
        OutputFormat::Float => {
            let float = output
                .float
                .as_ref()
                .ok_or_else(|| Failure::usage("the pipeline returned no image"))?;
            write_tensor(drawn, "image", float, metadata, plan)
        }
    }
}

fn write_tensor(
    drawn: &Drawn,
    name: &str,
    tensor: &Tensor,
    metadata: bool,
    plan: &OutputPlan,
) -> Result<Vec<PathBuf>, Failure> {
    let texts: Vec<(&str, String)> = match metadata {
        true => vec![("xdit", drawn.record.to_json())],
        false => Vec::new(),
    };
    let path = plan.write(0, |file| {
        let mut file = std::io::BufWriter::new(file);
        let entries = [Entry {
            name,
            data: EntryData::Tensor(tensor),
        }];
        let written = tensor_file::write(&mut file, &entries, &texts).and_then(|()| file.flush());
        written.map_err(|e| system_reason(&e))
    })?;
    Ok(vec![path])
}

/// Returns the names of files in one line: the first and the last of many.
pub(super) fn shown(files: &[PathBuf]) -> String {
    match files {
        [] => String::new(),
        [one] => failure::shown(one),
        [first, .., last] => format!(
            "{} … {} ({} files)",
            failure::shown(first),
            failure::shown(last),
            files.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_are_one_phrase() {
        let files: Vec<PathBuf> = (0..3).map(|i| format!("a_{i:03}.png").into()).collect();
        assert_eq!(shown(&files[..1]), "a_000.png");
        assert_eq!(shown(&files), "a_000.png … a_002.png (3 files)");
        assert_eq!(shown(&["a\nb.png".into()]), r"a\nb.png");
    }
}
