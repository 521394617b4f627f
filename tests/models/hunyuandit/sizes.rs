//! The sizes of pictures, and the positions of tokens for the real sizes.

use serde_json::Value;
use xdit_kernels::{DType, Device};
use xdit_models::hunyuandit::{HunyuanConfig, HunyuanPositions};
use xdit_models::{ConfigFile, LoadOptions, OutputType, Parallel, Pipeline, Request};
use xdit_tests::golden_run::{LATENTS, load};
use xdit_tests::recorded::{STAGE, source};

use super::V1_2;
use crate::golden::{Recorder, bytes, max_abs, relative_l2, request, within};

fn golden() -> Value {
    serde_json::from_slice(&bytes("hunyuan-sizes.json.gz")).expect("JSON")
}

fn pair(value: &Value) -> [usize; 2] {
    [0, 1].map(|i| value[i].as_u64().expect("a number") as usize)
}

fn numbers(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list");
    let number = |value: &Value| value.as_f64().expect("a number") as f32;
    list.iter().map(number).collect()
}

#[test]
fn sizes_are_snapped_as_diffusers_does() {
    let golden = golden();
    let binning = golden["binning"].as_array().expect("pairs");
    let supported = golden["supported"].as_array().expect("sizes");
    let all = binning.iter().map(|both| (pair(&both[0]), pair(&both[1])));
    let all = all.chain(supported.iter().map(|size| (pair(size), pair(size))));
    for ([height, width], drawn) in all {
        let request = Request::new(["a"]).height(height).width(width);
        let options = LoadOptions::default();
        let plan = Pipeline::plan(&source(V1_2), &options, &request, &Parallel::default());
        let plan = plan.unwrap_or_else(|e| panic!("{height} x {width}: {e}"));
        assert_eq!([plan.height, plan.width], drawn, "{height} x {width}");
    }
}

#[test]
fn tokens_of_real_sizes_stand_where_diffusers_has_them() {
    let json = br#"{"hidden_size": 1408, "in_channels": 4, "patch_size": 2}"#;
    let config = HunyuanConfig::read(&ConfigFile::parse("config.json", json).unwrap()).unwrap();
    for rotary in golden()["rotary"].as_array().expect("tables") {
        let side = |name: &str| rotary[name].as_u64().expect("pixels") as usize / 16;
        let positions =
            HunyuanPositions::new(&config, side("height"), side("width"), &Device::cpu()).unwrap();
        for (name, table) in [("cos", positions.cos()), ("sin", positions.sin())] {
            let rows = rotary["rows"].as_array().expect("rows");
            for (row, want) in rows.iter().zip(rotary[name].as_array().expect("rows")) {
                let row = row.as_u64().expect("a row") as usize;
                let got = table
                    .narrow(0, row, 1)
                    .unwrap()
                    .to_vec_blocking::<f32>()
                    .unwrap();
                // Each frequency is twice in a row.
                assert!(got.chunks(2).all(|two| two[0] == two[1]));
                let got: Vec<f32> = got.iter().step_by(2).copied().collect();
                // torch's vectorised `linspace` rounds a place of up to 32 by 2e-6.
                let apart = max_abs(&got, &numbers(want));
                assert!(within(apart, STAGE), "{name} {row}: {apart:.2e}");
            }
        }
    }
}

#[test]
fn a_picture_is_drawn_in_the_nearest_size() {
    let golden = &golden()["call"];
    let mut request = request(golden).output(OutputType::Latent);
    request.use_resolution_binning = None;
    let mut seen = Recorder::default();
    let output = load(V1_2, DType::F32, &Device::cpu())
        .0
        .generate(&request, &mut seen)
        .unwrap();
    let shape: Vec<f32> = output.latents.shape().iter().map(|n| *n as f32).collect();
    assert_eq!(shape, numbers(&golden["shape"]));
    let stride = golden["stride"].as_u64().expect("a stride") as usize;
    let latents = output.latents.to_vec_blocking::<f32>().unwrap();
    let latents: Vec<f32> = latents.iter().step_by(stride).copied().collect();
    let apart = relative_l2(&latents, &numbers(&golden["latents"]));
    assert!(within(apart, LATENTS), "{apart:.2e}");
    let told = |text: &&String| text.contains("768 × 1280") && text.contains("192 × 320");
    assert_eq!(
        seen.warnings.iter().filter(told).count(),
        1,
        "{:?}",
        seen.warnings
    );
}
