//! The stages of the autoencoder: encoder and decoder.

use xdit_kernels::{DType, Device};
use xdit_models::ModelSource;
use xdit_models::layers::Packing;
use xdit_models::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use xdit_models::weights::Scope;
use xdit_tests::golden_run::devices;

use crate::golden::{Golden, Recorder, path, relative_l2, within};

/// As for the transformer's blocks; a convolution by Winograd's method adds up to 1.6 times the error of a plain sum.
const STAGE: f64 = 2e-6;

fn check(pipeline: &str) {
    devices().for_each(|device| check_on(pipeline, &device));
}

fn check_on(pipeline: &str, device: &Device) {
    let source = ModelSource::folder(path(&format!("pipelines/{pipeline}"))).unwrap();
    let config = VaeConfig::read(&source.config("vae/config.json").unwrap()).unwrap();
    let weights = source.open_weights("vae", None).unwrap();
    let packing = &mut Packing::new(DType::F32, device.clone());
    let decoder = VaeDecoder::load(&config, &Scope::root(&weights), packing).unwrap();
    let encoder = VaeEncoder::load(&config, &Scope::root(&weights), packing).unwrap();
    assert!(
        weights.unused().is_empty(),
        "nobody asked for {:?}",
        weights.unused()
    );

    let golden = Golden::read(&format!("vae/{pipeline}.safetensors.gz"));
    let nhwc = |name: &str| {
        golden
            .tensor(name, device)
            .view()
            .permute(&[0, 2, 3, 1])
            .unwrap()
            .to_tensor()
            .unwrap()
    };
    let mut seen = Recorder::default();
    decoder
        .forward(&nhwc("vae.decoder.input"), &mut seen)
        .unwrap();
    let moments = encoder
        .forward(&nhwc("vae.encoder.input"), &mut seen)
        .unwrap();
    let mode = moments
        .mean()
        .unwrap()
        .view()
        .permute(&[0, 3, 1, 2])
        .unwrap()
        .to_tensor()
        .unwrap();
    seen.tensors.insert("vae.encoder.mode".into(), mode);

    let mut wrong = Vec::new();
    for name in golden.names() {
        let (shape, want) = golden.f32(&name);
        let got = seen
            .tensors
            .get(&name)
            .unwrap_or_else(|| panic!("{name} was not shown"));
        assert_eq!(got.shape(), shape, "{name}");
        let apart = relative_l2(&got.to_vec_blocking::<f32>().unwrap(), &want);
        if !within(apart, STAGE) {
            wrong.push(format!("{name}: {apart:.2e}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{pipeline} on {device}:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn autoencoder_of_flux_dev_agrees_with_diffusers() {
    check("flux-dev");
}

#[test]
fn autoencoder_of_flux_schnell_agrees_with_diffusers() {
    check("flux-schnell");
}
