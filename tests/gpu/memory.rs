//! What calls hold on a GPU.

use xdit_models::{LoadOptions, Pipeline, Request};
use xdit_tests::recorded::source;

use crate::support::gpu;

/// The models of a call with low memory would lie beside the text encoders of the next one.
#[test]
#[ignore = "needs a GPU"]
fn with_low_memory_a_call_takes_no_more_than_the_one_before() {
    let device = gpu();
    let options = LoadOptions {
        device: device.clone(),
        low_memory: true,
        ..LoadOptions::default()
    };
    let pipe = Pipeline::load(&source("flux-dev"), &options, &mut ()).unwrap();
    // So small that weights take the most.
    let request = Request::new("a red circle")
        .height(32)
        .width(32)
        .num_inference_steps(1)
        .max_sequence_length(5);
    let peaks = [(); 3].map(|()| {
        device.reset_cuda_peak();
        pipe.generate(&request, &mut ()).unwrap();
        device.cuda_memory().unwrap().peak
    });
    // A hundredth for what the first call makes and later ones keep.
    let most = peaks[0] + peaks[0] / 100;
    assert!(peaks.iter().all(|peak| *peak <= most), "{peaks:?}");
}
