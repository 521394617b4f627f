//! What the environment sets; `tests/vgpu/README.md` lists it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

/// The value of a variable, or the default without it. One that cannot be read would silently test something else, so the process ends.
fn number<T: FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    text.parse().unwrap_or_else(|_| refused(name, &text))
}

fn refused(name: &str, text: &str) -> ! {
    eprintln!("vgpu: {name}={text} is not a value of this variable");
    std::process::abort()
}

pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| number("VGPU_SEED", 1))
}

/// Where processes meet whose ranks belong together.
pub(crate) fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let read = || std::env::var_os("VGPU_NCCL_FOLDER").map(PathBuf::from);
    FOLDER.get_or_init(read).as_deref()
}

pub(crate) fn version() -> i32 {
    number("VGPU_NCCL_VERSION", 22_809)
}

/// On which rank NCCL fails by itself, and after how many polls.
pub(crate) fn breakage() -> Option<(usize, u32)> {
    const NAME: &str = "VGPU_NCCL_BREAK";
    static BREAKAGE: OnceLock<Option<(usize, u32)>> = OnceLock::new();
    *BREAKAGE.get_or_init(|| {
        let text = std::env::var(NAME).ok()?;
        let numbers = text.split_once(':');
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        Some(numbers.unwrap_or_else(|| refused(NAME, &text)))
    })
}
