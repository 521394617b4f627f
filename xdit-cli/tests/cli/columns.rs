//! `plan` and `info` fit a terminal of 80 columns: every family, long names of folders, many ranks, long schedules.

use std::path::{Path, PathBuf};

use crate::program::run;

const COLUMNS: usize = 80;

const FAMILIES: [&str; 8] = [
    "flux-dev",
    "flux-schnell",
    "flux-variant",
    "hunyuan-v1.1",
    "hunyuan-v1.2",
    "sd3-medium",
    "sd35-large",
    "sd35-medium",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/pipelines")
        .join(name)
}

/// Runs the program and checks the widths of what it prints on standard output.
fn fits(words: &[&str]) -> String {
    let told = run(Path::new("."), words).succeeded().stdout;
    for line in told.lines() {
        let width = line.chars().count();
        assert!(width <= COLUMNS, "{words:?}: {width} columns: {line}");
    }
    told
}

#[test]
fn every_family_fits() {
    let mut models = vec!["demo".to_owned()];
    models.extend(FAMILIES.map(|name| golden(name).display().to_string()));
    for model in &models {
        fits(&["info", model]);
        fits(&["plan", "--model", model]);
        let many = "--pipefusion-parallel-degree 2 --ulysses-degree 2 --ring-degree 2 --data-parallel-degree 2 \
                    --num-pipeline-patch 2 --num-images-per-prompt 2 --num-inference-steps 64 --show-schedule 64";
        let mut words = vec!["plan", "--model", model];
        words.extend(many.split_whitespace());
        let told = fits(&words);
        assert!(told.contains("16 ranks: data 2"), "{told}");
    }
}

#[test]
#[cfg(unix)]
fn long_names_fit() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a folder ".repeat(20).trim());
    std::fs::create_dir(&deep).unwrap();
    let name = deep.join("m".repeat(200));
    std::os::unix::fs::symlink(golden("sd35-medium").canonicalize().unwrap(), &name).unwrap();
    let name = name.to_str().unwrap();
    let (info, plan) = (fits(&["info", name]), fits(&["plan", "--model", name]));
    assert!(info.contains("StableDiffusion3Pipeline"), "{info}");
    assert!(plan.contains("28 steps"), "{plan}");
}

/// Cut into pieces, a schedule still has every unit of time of every stage once.
#[test]
fn a_schedule_is_whole() {
    let words =
        "plan --pipefusion-parallel-degree 2 --num-pipeline-patch 4 --show-schedule 20 --quiet";
    let told = fits(&words.split_whitespace().collect::<Vec<_>>());
    let (_, schedule) = told.split_once("whole step\n").unwrap();
    for stage in ["stage 0 |", "stage 1 |"] {
        let rows = schedule.lines().filter_map(|line| line.strip_prefix(stage));
        let cells: Vec<&str> = rows.flat_map(str::split_whitespace).collect();
        for cell in (1..20).flat_map(|step| (0..4).map(move |patch| format!("{step}.{patch}"))) {
            let count = cells.iter().filter(|it| **it == cell).count();
            assert_eq!(count, 1, "{cell} in {stage}\n{schedule}");
        }
    }
}
