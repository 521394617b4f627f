//! Module images: PTX texts, each decoded once, and what a driver checks when it loads one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ptx_interp::{Entry, Module};

use crate::codes::{self, Code};
use crate::config::Config;

/// A decoded text.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) module: Arc<Module>,
    /// For each kernel, where its parameters hold pointers to global memory.
    pub(crate) pointers: Arc<[Vec<usize>]>,
}

/// The texts that were decoded.
#[derive(Debug, Default)]
pub(crate) struct Images(Mutex<HashMap<String, Image>>);

impl Images {
    /// Decodes a text, or says why this device and driver refuse it.
    pub(crate) fn load(&self, config: &Config, text: &str) -> Result<Image, (Code, String)> {
        let known = {
            let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            images.get(text).cloned()
        };
        let image = match known {
            Some(image) => image,
            None => {
                let module = Module::parse(text)
                    .map_err(|error| (codes::INVALID_PTX, format!("PTX: {error}")))?;
                let entries = module.entries().iter();
                let image = Image {
                    pointers: entries.map(|entry| pointers(text, entry)).collect(),
                    module: Arc::new(module),
                };
                let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                images.insert(text.to_owned(), image.clone());
                image
            }
        };
        check(config, &image.module)?;
        Ok(image)
    }
}

/// Whether the driver knows the version of PTX, and the device the architecture.
fn check(config: &Config, module: &Module) -> Result<(), (Code, String)> {
    let (driver, version) = (config.driver, module.version());
    if version > codes::newest_ptx(driver) {
        let text = format!(
            "PTX {}.{} needs a newer driver than {}.{}",
            version.0,
            version.1,
            driver / 1000,
            driver % 1000 / 10
        );
        return Err((codes::UNSUPPORTED_PTX_VERSION, text));
    }
    let (major, minor) = config.capability;
    let target = module.target();
    let number = target.trim_start_matches("sm_");
    let exact = number.ends_with(['a', 'f']);
    let wanted: u32 = number
        .trim_end_matches(['a', 'f'])
        .parse()
        .map_err(|_| (codes::INVALID_PTX, format!("PTX for {target}")))?;
    let device = major * 10 + minor;
    if wanted > device || exact && wanted != device {
        let text = format!("PTX for {target} does not run on a device of {major}.{minor}");
        return Err((codes::NO_BINARY_FOR_GPU, text));
    }
    Ok(())
}

/// The register and the operand of an instruction `opcode register, operand;`.
fn operands<'t>(line: &'t str, opcode: &str) -> Option<(&'t str, &'t str)> {
    let rest = line.trim().strip_prefix(opcode)?.trim_end_matches(';');
    let (register, operand) = rest.split_once(',')?;
    Some((register.trim(), operand.trim()))
}

/// Where a kernel's parameters hold pointers: the 64-bit parameters that the code makes addresses of global memory.
fn pointers(text: &str, entry: &Entry) -> Vec<usize> {
    let start = format!(".entry {}(", entry.name());
    let Some((_, body)) = text.split_once(&start) else {
        return Vec::new();
    };
    let body = body.split(".entry ").next().unwrap_or(body);
    let mut loaded: HashMap<&str, usize> = HashMap::new();
    let mut found = Vec::new();
    for line in body.lines() {
        if let Some((register, operand)) = operands(line, "ld.param.u64") {
            if let Some(offset) = param_offset(operand, entry) {
                loaded.insert(register, offset);
            }
        } else if let Some((_, operand)) = operands(line, "cvta.to.global.u64")
            && let Some(&offset) = loaded.get(operand)
        {
            found.push(offset);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The offset that `[name_param_2+8]` means.
fn param_offset(operand: &str, entry: &Entry) -> Option<usize> {
    let inside = operand.strip_prefix('[')?.strip_suffix(']')?;
    let (name, plus) = inside.split_once('+').unwrap_or((inside, "0"));
    let index: usize = name.rsplit_once("_param_")?.1.parse().ok()?;
    Some(entry.params().get(index)?.offset + plus.parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_the_parameters_that_become_global_addresses() {
        let text = "
            .version 8.0
            .target sm_80
            .address_size 64
            .visible .entry k(.param .u64 k_param_0, .param .u32 k_param_1, .param .align 8 .b8 k_param_2[24]) {
                .reg .b64 %rd<9>;
                ld.param.u64 %rd1, [k_param_0];
                ld.param.u64 %rd2, [k_param_2];
                ld.param.u64 %rd3, [k_param_2+16];
                cvta.to.global.u64 %rd4, %rd1;
                cvta.to.global.u64 %rd5, %rd3;
                ret;
            }";
        let module = Module::parse(text).unwrap();
        assert_eq!(pointers(text, &module.entries()[0]), [0, 32]);
    }
}
