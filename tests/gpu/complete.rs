//! No kernel is left out: this test needs no GPU.

use std::{fs, path::Path};

/// The tests of kernels, whose calls are searched.
const TESTS: [&str; 9] = [
    include_str!("attention.rs"),
    include_str!("conv2d.rs"),
    include_str!("copies.rs"),
    include_str!("elements.rs"),
    include_str!("group_norm.rs"),
    include_str!("heads.rs"),
    include_str!("linear.rs"),
    include_str!("rows.rs"),
    include_str!("sums.rs"),
];

/// The functions that the files of a kernel's folder make public, and the methods of its layers that compute.
fn calls(text: &str) -> Vec<&str> {
    let functions = text.lines().filter(|line| line.starts_with("pub fn "));
    let methods = text.lines().filter(|line| {
        let line = line.trim_start();
        line.starts_with("pub fn forward") || line.starts_with("pub fn add_")
    });
    functions.chain(methods).filter_map(name_of).collect()
}

/// The name of the function that this line begins.
fn name_of(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub fn ")?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
}

/// Whether a test calls a function or method of exactly this name.
fn is_called(name: &str) -> bool {
    let call = format!("{name}(");
    TESTS.iter().any(|test| {
        test.match_indices(&call).any(|(at, _)| {
            let before = test[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        })
    })
}

#[test]
fn every_kernel_has_a_test_on_the_gpu() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdit-kernels/src");
    let mut found = 0;
    for folder in fs::read_dir(source).unwrap().flatten() {
        let folder = folder.path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        // Simd has no kernels, and the driver's code none of its own.
        if !folder.is_dir() || ["simd", "cuda"].contains(&&*name) {
            continue;
        }
        for file in ["mod.rs", "scalars.rs", "rows.rs", "flash.rs", "table.rs"] {
            let Ok(text) = fs::read_to_string(folder.join(file)) else {
                continue;
            };
            for call in calls(&text) {
                found += 1;
                // A call and the one that writes into a given output are the same kernel.
                let kernel = call.strip_suffix("_into").unwrap_or(call);
                let tested = [kernel.to_owned(), format!("{kernel}_into")];
                assert!(
                    tested.iter().any(|call| is_called(call)),
                    "{name}::{call}: give it a test in tests/gpu"
                );
            }
        }
    }
    assert!(found > 40, "{found} calls are found");
}
