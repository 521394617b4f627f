//! Records survive their text, old ones too.

use super::*;

pub(crate) fn record() -> RunRecord {
    RunRecord {
        format: FORMAT,
        version: "xdit-rs 0.1.0".into(),
        model: ModelRecord {
            name: "black-forest-labs/FLUX.1-dev".into(),
            revision: Some("main".into()),
            variant: None,
            no_t5: false,
            class: "FluxPipeline".into(),
            digest: "0123456789abcdef".into(),
        },
        request: Request::new(["a \"red\" circle, ünïcode ❤", "b"])
            .negative_prompt(["blurry"])
            .true_cfg_scale(1.5)
            .height(512)
            .width(1024)
            .num_inference_steps(28)
            .guidance_scale(3.5)
            .max_sequence_length(512)
            .num_images_per_prompt(2)
            .seed(u64::MAX),
        dtype: "f32".into(),
        device: "cpu".into(),
        tier: "avx2".into(),
        allow_tf32: false,
        parallel: None,
        continued: Vec::new(),
        image: 2,
        images: 4,
    }
}

fn survives(record: &RunRecord) {
    let again = RunRecord::parse(&record.to_json()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{record:?}"));
}

#[test]
fn survives_json() {
    survives(&record());
    let mut negative = record();
    negative.request.seeds = vec![i128::from(i64::MIN), 0, 1, 2];
    survives(&negative);
    let mut shared = record();
    let mut parallel = ParallelRecord {
        ulysses_degree: 2,
        ring_degree: 3,
        cfg_degree: 2,
        parallel_vae: false,
        mesh_order: "ulysses,ring,pipe,cfg,data".parse().unwrap(),
        pipefusion: None,
    };
    shared.parallel = Some(parallel.clone());
    survives(&shared);
    let json = shared.to_json();
    let damaged = RunRecord::parse(&json.replace("ulysses,ring,pipe", "ring,ring,pipe"));
    assert!(damaged.unwrap_err().contains("in some order"), "{json}");
    // Older records know no guidance ranks and no order.
    (parallel.cfg_degree, parallel.mesh_order) = (1, MeshOrder::USUAL);
    shared.parallel = Some(parallel.clone());
    let json = shared.to_json();
    assert!(!json.contains("cfg_degree") && !json.contains("mesh_order"));
    survives(&shared);
    assert_eq!(parallel.parallel().pipefusion, PipeFusion::default());
    parallel.pipefusion = Some(crate::report::pipefusion::tests::record());
    shared.parallel = Some(parallel);
    survives(&shared);
    assert!(!shared.to_json().contains("guidance_rescale"));
    shared.request.guidance_rescale = 0.7;
    shared.request.scheduler = Some("DDIMScheduler".into());
    shared.request.target_size = Some([64, 32]);
    survives(&shared);
}

#[test]
fn ranks_that_finished_steps_draw_again() {
    let mut record = record();
    let ring = |ring_degree| ParallelRecord {
        ulysses_degree: 1,
        ring_degree,
        cfg_degree: 1,
        parallel_vae: true,
        mesh_order: MeshOrder::USUAL,
        pipefusion: None,
    };
    let part = |first_step, parallel| ContinuedRecord {
        first_step,
        parallel,
    };
    record.parallel = Some(ring(4));
    let parts = |record: &RunRecord| -> Vec<(usize, usize)> {
        let parts = record.parts().into_iter();
        parts
            .map(|(first, ranks)| (first, ranks.degrees.ring))
            .collect()
    };
    assert_eq!(parts(&record), [(0, 4)]);
    // Of 28 steps; the third ranks finished none, the last ones only decoded.
    record.continued = vec![
        part(3, Some(ring(3))),
        part(9, Some(ring(2))),
        part(9, None),
        part(28, None),
    ];
    survives(&record);
    assert_eq!(parts(&record), [(0, 4), (3, 3), (9, 1)]);
    record.continued = vec![part(0, Some(ring(3)))];
    assert_eq!(parts(&record), [(0, 3)]);
}

#[test]
fn records_of_before_the_field_repeat_what_was_drawn() {
    let mut record = record();
    assert!(!record.exact_diffusers(), "Flux has no masks");
    record.model.class = "HunyuanDiTPipeline".into();
    assert!(record.exact_diffusers());
    record.request.exact_diffusers = Some(false);
    assert!(!record.exact_diffusers());
    record.request.exact_diffusers = None;
    record.request.num_images_per_prompt = 1;
    assert!(!record.exact_diffusers());
}

#[test]
fn damage_is_named() {
    let json = record().to_json();
    let missing = RunRecord::parse(&json.replace("\"dtype\":\"f32\",", "")).unwrap_err();
    assert!(missing.contains("dtype"), "{missing}");
    let newer = RunRecord::parse(&json.replace("\"format\":1", "\"format\":2")).unwrap_err();
    assert!(newer.contains("format 2"), "{newer}");
    assert!(RunRecord::parse(&json.replace("\"image\":2", "\"image\":4")).is_err());
    let unknown = json.replace("\"height\":", "\"heigth\":");
    let unknown = RunRecord::parse(&unknown).unwrap_err();
    assert!(unknown.contains("unknown field `heigth`"), "{unknown}");
    assert!(RunRecord::parse("").is_err());
}
