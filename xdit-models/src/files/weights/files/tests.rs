use half::bf16;
use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::files::weights::Scope;

/// A safetensors file of f32 tensors.
fn file(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, shape, values)| {
        let view =
            TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(values)).unwrap();
        (*name, view)
    });
    safetensors::serialize(views, None).unwrap()
}

fn single(bytes: Vec<u8>) -> Result<Weights> {
    Weights::open(
        &ModelSource::memory([("vae/diffusion_pytorch_model.safetensors", bytes)]),
        "vae",
        None,
    )
}

#[test]
fn every_kind_of_source_gives_the_same_tensor() {
    let bytes = file(&[
        ("a.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        ("b", &[1], &[5.0]),
    ]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("vae")).unwrap();
    std::fs::write(folder.path().join("vae/model.safetensors"), &bytes).unwrap();
    let embedded: &'static [u8] = Box::leak(bytes.clone().into_boxed_slice());
    let files: &'static [_] = Box::leak(Box::new([("vae/model.safetensors", embedded)]));
    for source in [
        ModelSource::folder(folder.path()).unwrap(),
        ModelSource::embedded("demo", files),
        ModelSource::memory([("vae/model.safetensors", bytes.clone())]),
    ] {
        let weights = source.open_weights("vae", None).unwrap();
        assert_eq!(weights.unused(), ["a.weight", "b"]);
        let scope = Scope::root(&weights)
            .child_if_present("nowhere")
            .child_if_present("a");
        let sum = scope
            .pack("weight", &[2, 2], |tensor| {
                Ok::<_, Error>(tensor.to_vec_blocking::<f32>().unwrap().iter().sum::<f32>())
            })
            .unwrap();
        assert_eq!(sum, 10.0, "{source:?}");
        // Released pages come back when they are read again.
        assert_eq!(
            scope
                .tensor("weight", &[2, 2])
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap(),
            [1.0, 2.0, 3.0, 4.0]
        );
        assert_eq!(weights.unused(), ["b"]);
        assert_eq!(weights.total_bytes(), 20);
    }
}

#[test]
fn errors_name_file_tensor_expected_and_found() {
    let weights = single(file(&[
        ("a", &[2], &[1.0, f32::NAN]),
        ("b", &[2], &[1.0, 2.0]),
    ]))
    .unwrap();
    let error = |name: &str, shape: &[usize]| weights.tensor(name, shape).unwrap_err().to_string();
    let file = "memory:vae/diffusion_pytorch_model.safetensors";
    assert_eq!(
        error("b", &[3]),
        format!("{file}: tensor `b`: expected shape [3], found shape [2]")
    );
    assert_eq!(
        error("c", &[3]),
        format!("{file}: tensor `c`: expected shape [3], found no tensor of this name")
    );
    assert_eq!(
        error("a", &[2]),
        format!("{file}: tensor `a`: expected finite numbers, found NaN or infinity at element 1")
    );
}

#[test]
fn only_three_dtypes_compute() {
    let halves = [bf16::from_f32(1.5)];
    let views = [
        (
            "h",
            TensorView::new(Dtype::BF16, vec![1], bytemuck::cast_slice(&halves)).unwrap(),
        ),
        ("i", TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap()),
    ];
    let weights = single(safetensors::serialize(views, None).unwrap()).unwrap();
    assert_eq!(
        weights
            .tensor("h", &[1])
            .unwrap()
            .to_vec_blocking::<bf16>()
            .unwrap(),
        halves
    );
    let error = weights.tensor("i", &[1]).unwrap_err().to_string();
    assert!(
        error.ends_with("expected dtype F32, BF16 or F16, found dtype I64"),
        "{error}"
    );
}

fn shards(map: &str, first: Vec<u8>, second: Vec<u8>) -> ModelSource {
    ModelSource::memory([
        (
            "t/model.safetensors.index.json",
            format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#).into_bytes(),
        ),
        ("t/model-1-of-2.safetensors", first),
        ("t/model-2-of-2.safetensors", second),
    ])
}

#[test]
fn shards_are_one() {
    let map = r#"{"a":"model-1-of-2.safetensors","b":"model-2-of-2.safetensors"}"#;
    let weights = shards(
        map,
        file(&[("a", &[1], &[1.0])]),
        file(&[("b", &[1], &[2.0])]),
    )
    .open_weights("t", None)
    .unwrap();
    assert_eq!(
        weights
            .tensor("a", &[1])
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap(),
        [1.0]
    );
    assert_eq!(
        weights
            .tensor("b", &[1])
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap(),
        [2.0]
    );
    let missing = weights.tensor("c", &[1]).unwrap_err().to_string();
    assert!(
        missing.starts_with("memory:t/model.safetensors.index.json: tensor `c`"),
        "{missing}"
    );
}

#[test]
fn broken_shards_are_named() {
    let a = || file(&[("a", &[1], &[1.0])]);
    let both = r#"{"a":"model-1-of-2.safetensors","b":"model-2-of-2.safetensors"}"#;
    for (source, part) in [
        (
            shards(both, a(), a()),
            "tensor `a` is also in memory:t/model-1-of-2.safetensors",
        ),
        (
            shards(r#"{"a":"model-9-of-2.safetensors"}"#, a(), a()),
            "model-9-of-2.safetensors: no such file",
        ),
        (
            shards(r#"{"a":"../../x.safetensors"}"#, a(), a()),
            "a shard must lie beside the index",
        ),
        (shards("{}", a(), a()), "0 shards"),
        (shards("[]", a(), a()), "not an index of weights"),
    ] {
        let error = source.open_weights("t", None).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_only_an_index_lists_matters_to_who_asks_for_it() {
    let both = r#"{"a":"model-1-of-2.safetensors","b":"model-2-of-2.safetensors"}"#;
    // Nobody reads the metadata, in which Python may write what is no JSON.
    let source = shards(
        &format!(r#"{both},"metadata":{{"total_size":NaN}}"#),
        file(&[("a", &[1], &[1.0])]),
        file(&[("c", &[1], &[2.0])]),
    );
    let weights = source.open_weights("t", None).unwrap();
    assert_eq!(
        weights
            .tensor("a", &[1])
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap(),
        [1.0]
    );
    let error = weights.tensor("b", &[1]).unwrap_err().to_string();
    assert!(
        error.contains(
            "model-2-of-2.safetensors: tensor `b`: expected this tensor, as the index says"
        ),
        "{error}"
    );
}

#[test]
fn variants_are_found_in_every_spelling() {
    let a = || file(&[("a", &[1], &[16.0])]);
    let plain = || file(&[("a", &[1], &[32.0])]);
    let index = || br#"{"weight_map":{"a":"model.fp16-1-of-1.safetensors"}}"#.to_vec();
    for files in [
        vec![("t/model.fp16.safetensors", a())],
        vec![
            ("t/model.safetensors.index.fp16.json", index()),
            ("t/model.fp16-1-of-1.safetensors", a()),
        ],
        vec![
            ("t/model.safetensors.fp16.index.json", index()),
            ("t/model.fp16-1-of-1.safetensors", a()),
        ],
    ] {
        let mut files = files;
        files.push(("t/model.safetensors", plain()));
        let source = ModelSource::memory(files);
        for (variant, value) in [(Some("fp16"), 16.0), (None, 32.0)] {
            let weights = source.open_weights("t", variant).unwrap();
            assert_eq!(
                weights
                    .tensor("a", &[1])
                    .unwrap()
                    .to_vec_blocking::<f32>()
                    .unwrap(),
                [value]
            );
        }
        let error = source
            .open_weights("t", Some("bf16"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no component has a variant `bf16`"),
            "{error}"
        );
    }
    let mixed = ModelSource::memory([
        ("t/model.safetensors", plain()),
        ("v/model.fp16.safetensors", a()),
    ]);
    assert_eq!(
        mixed
            .open_weights("t", Some("fp16"))
            .unwrap()
            .tensor("a", &[1])
            .unwrap()
            .to_vec_blocking::<f32>()
            .unwrap(),
        [32.0]
    );
}

#[test]
fn what_lies_there_instead_is_named() {
    for (path, part) in [
        ("t/pytorch_model.bin", "only safetensors are read"),
        ("t/model.fp16.safetensors", "is it a variant?"),
        (
            "t/model-00001-of-00003.safetensors",
            "shards but no index of them: fetch `model.safetensors.index.json` too",
        ),
        ("t/pytorch_model-00001-of-00002.bin", "a pickle"),
        (
            "t/config.json",
            "*.safetensors: no such file in the pipeline",
        ),
    ] {
        let error = ModelSource::memory([(path, Vec::new())])
            .open_weights("t", None)
            .unwrap_err();
        assert!(
            matches!(error, Error::MissingFile { .. }) && error.to_string().contains(part),
            "{error}"
        );
    }
}
