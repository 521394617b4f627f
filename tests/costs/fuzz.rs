//! Loads ten thousand damaged files: none may cause a panic or much memory.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xdit_models::flux::FluxConfig;
use xdit_models::schedulers::{SchedulerConfig, TimestepRequest};
use xdit_models::sd3::Sd3Config;
use xdit_models::text::tokenizers::Tokenizer;
use xdit_models::text::{BertConfig, ClipTextConfig, T5Config};
use xdit_models::vae::VaeConfig;
use xdit_models::weights::{WeightSource, Weights};
use xdit_models::{ModelIndex, ModelSource, Result, info};
use xdit_tests::attack::{Rng, files};

/// The golden pipelines whose files are damaged: every file form there is, each small.
const PIPELINES: [&str; 4] = ["flux-dev", "flux-schnell", "flux-variant", "sd35-medium"];
/// Those of which only the files of text encoders and tokenizers are.
const TEXT_ONLY: [&str; 2] = ["hunyuan-v1.1", "hunyuan-v1.2"];
/// Larger files would only make each case slower.
const LONGEST: u64 = 400_000;

/// One kind of damage; places are fractions of 2^16.
#[derive(Clone, Debug)]
enum Damage {
    Replace(u16, Vec<u8>),
    Insert(u16, Vec<u8>),
    Remove(u16, u16),
    Repeat(u16, u16),
    Truncate(u16),
    Random(Vec<u8>),
    /// By structure, as `ci/attack.sh` damages files.
    Structure(u64),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let telling = prop_oneof![
            any::<Vec<u8>>(),
            // What means something in JSON, in headers, in numbers.
            prop::sample::select(vec![
                &b"{"[..],
                b"}",
                b"[",
                b"]",
                b"\"",
                b",",
                b":",
                b"-",
                b"0",
                b"9999999999",
                b"1e999",
                b"null",
                b"true",
                b"\\u0000",
                b"\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\0\0\0\0\0\0\0\0",
                b"\0\0\0\x80",
                b"F32",
                b"[0,0]",
                b"../",
                b"\x0a\xff\x7f",
            ])
            .prop_map(<[u8]>::to_vec),
        ];
        let telling = telling.boxed();
        prop_oneof![
            6 => (any::<u16>(), telling.clone()).prop_map(|(at, bytes)| Self::Replace(at, bytes)),
            3 => (any::<u16>(), telling).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            2 => (any::<u16>(), 0_u16..400).prop_map(|(at, len)| Self::Remove(at, len)),
            2 => (any::<u16>(), 0_u16..400).prop_map(|(at, len)| Self::Repeat(at, len)),
            1 => any::<u16>().prop_map(Self::Truncate),
            1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Self::Random),
            3 => any::<u64>().prop_map(Self::Structure),
        ]
    }

    /// Damages the content `file` of the file `path`.
    fn apply(&self, path: &str, file: &mut Vec<u8>) {
        let place = |at: u16| file.len() * usize::from(at) / 65536;
        match self {
            Self::Replace(at, bytes) => {
                let at = place(*at);
                let end = (at + bytes.len()).min(file.len());
                file.splice(at..end, bytes.iter().copied());
            }
            Self::Insert(at, bytes) => {
                let at = place(*at);
                file.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, len) => {
                let at = place(*at);
                file.drain(at..(at + usize::from(*len)).min(file.len()));
            }
            Self::Repeat(at, len) => {
                let at = place(*at);
                let part = file[at..(at + usize::from(*len)).min(file.len())].to_vec();
                file.splice(at..at, part);
            }
            Self::Truncate(at) => {
                let at = place(*at);
                file.truncate(at);
            }
            Self::Random(bytes) => bytes.clone_into(file),
            Self::Structure(seed) => {
                *file = files::damage(Path::new(path), file, &[], &mut Rng::new(*seed));
            }
        }
    }
}

/// Every file of the golden pipelines that is not too large: its pipeline and its path.
fn all_files() -> Vec<(ModelSource, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pipelines");
    let mut files = Vec::new();
    for pipeline in PIPELINES.into_iter().chain(TEXT_ONLY) {
        let source = ModelSource::folder(root.join(pipeline)).expect("a golden pipeline");
        let of_text =
            |path: &str| path.starts_with("text_encoder") || path.starts_with("tokenizer");
        let paths = source.list().expect("its files").into_iter();
        for path in paths.filter(|path| PIPELINES.contains(&pipeline) || of_text(path)) {
            let len = std::fs::metadata(root.join(pipeline).join(&path))
                .expect("a file")
                .len();
            if len <= LONGEST {
                files.push((source.clone(), path));
            }
        }
    }
    assert!(files.len() > 30, "only {} files", files.len());
    files
}

/// The files of the folder that `path` lies in, with `path` itself replaced by `content`.
fn damaged(source: &ModelSource, path: &str, content: Vec<u8>) -> ModelSource {
    let folder = path.split_inclusive('/').next().expect("a path");
    let all = source
        .list()
        .expect("files")
        .into_iter()
        .filter(|other| other.starts_with(folder) && other != path);
    let rest = all.map(|other| {
        let bytes = source
            .read(&other, 100_000_000)
            .expect("a golden file")
            .into_owned();
        (other, bytes)
    });
    ModelSource::memory(rest.chain([(path.to_owned(), content)]).collect::<Vec<_>>())
}

/// Loads whatever the folder of `path` holds, and uses it when it loads.
fn load(source: &ModelSource, path: &str) -> Result<()> {
    let (component, name) = path.split_once('/').unwrap_or(("", path));
    let loaded = match component {
        "" => ModelIndex::read(source).map(drop),
        "scheduler" => source.config(path).and_then(|file| {
            let steps = TimestepRequest {
                num_inference_steps: Some(4),
                mu: Some(0.8),
                ..Default::default()
            };
            for class in SchedulerConfig::DIFFUSION {
                // Another class may refuse what this one takes; it does not panic.
                let other = SchedulerConfig::read_as(class, &file);
                let _ = other.and_then(|config| config.scheduler().set_timesteps(&steps));
            }
            let config = SchedulerConfig::read(&file)?;
            config.scheduler().set_timesteps(&steps)
        }),
        "tokenizer" => tokenize(source, component, "CLIPTokenizer")
            .or_else(|_| tokenize(source, component, "BertTokenizer")),
        "tokenizer_2" | "tokenizer_3" => tokenize(source, component, "T5TokenizerFast")
            .or_else(|_| tokenize(source, component, "CLIPTokenizer")),
        _ if name == "config.json" => source.config(path).and_then(|file| match component {
            "transformer" => FluxConfig::read(&file)
                .map(drop)
                .or_else(|_| Sd3Config::read(&file).map(drop)),
            "text_encoder" => ClipTextConfig::read(&file)
                .map(drop)
                .or_else(|_| BertConfig::read(&file).map(drop)),
            // CLIP's or T5's, as the pipeline has it.
            "text_encoder_2" | "text_encoder_3" => T5Config::read(&file)
                .map(drop)
                .or_else(|_| ClipTextConfig::read(&file).map(drop)),
            _ => VaeConfig::read(&file).map(drop),
        }),
        _ => weigh(source, component, None).or_else(|_| weigh(source, component, Some("fp16"))),
    };
    if component.starts_with("tokenizer") {
        let _ = tokenize(source, component, "TokenizersBackend");
    }
    let _ = info::describe(source, None);
    loaded
}

fn tokenize(source: &ModelSource, component: &str, class: &str) -> Result<()> {
    let tokenizer = Tokenizer::read(source, component, class)?;
    for prompt in [
        "",
        "a red circle, 12 × ½ ﬁne Æ",
        "<|endoftext|></s><extra_id_3>😀\u{0}",
    ] {
        tokenizer.encode(prompt, 16)?;
    }
    Ok(())
}

fn weigh(source: &ModelSource, component: &str, variant: Option<&str>) -> Result<()> {
    let weights = Weights::open(source, component, variant)?;
    let all: Vec<_> = weights
        .tensors()
        .map(|(name, info)| (name.to_owned(), info.clone()))
        .collect();
    for (name, info) in all
        .into_iter()
        .filter(|(_, info)| info.dtype.dtype().is_some())
    {
        weights.tensor(&name, &info.shape)?;
    }
    Ok(())
}

/// Panics on any thread, those that a library's caller catches included.
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn no_damage_panics_or_takes_much_memory() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        print(panic);
    }));
    let files = all_files();
    for (source, path) in &files {
        let whole = source
            .read(path, 100_000_000)
            .expect("a golden file")
            .into_owned();
        load(&damaged(source, path, whole), path)
            .unwrap_or_else(|error| panic!("undamaged: {error}"));
    }
    let before = peak_kib();
    let config = Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    };
    let damages = prop::collection::vec(Damage::any(), 1..4);
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(Default::default()),
    );
    let outcomes = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let outcome = runner.run(&(0..files.len(), damages), |(file, damages)| {
        let (source, path) = &files[file];
        let mut content = source
            .read(path, 100_000_000)
            .expect("a golden file")
            .into_owned();
        for damage in damages {
            damage.apply(path, &mut content);
        }
        let loaded = load(&damaged(source, path, content), path).is_ok();
        outcomes[usize::from(loaded)].fetch_add(1, Ordering::SeqCst);
        prop_assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a panic, {}", path);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // Damage that is always seen or never would test one path only.
    assert!(
        outcomes
            .iter()
            .all(|count| count.load(Ordering::SeqCst) > 500),
        "refused and loaded: {outcomes:?}"
    );
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        // The largest golden file has 400 kB; a header that lies about a length may ask for gigabytes.
        assert!(
            after - before <= 512 * 1024,
            "the address space grew by {} KiB",
            after - before
        );
    }
}

/// The largest address space so far, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmPeak:"))?
        .trim()
        .strip_suffix(" kB")?
        .trim()
        .parse()
        .ok()
}
