//! Tests of requests: round trips through JSON, the order of overlays, and errors that name the field.

use proptest::prelude::*;

use super::{Overlay, Request};

/// Any number that JSON can hold, to the last bit. No negative zero: it equals the default, and defaults are not written.
fn number() -> impl Strategy<Value = f64> {
    any::<f64>()
        .prop_filter("JSON has no such number", |number| number.is_finite())
        .prop_map(|number| number + 0.0)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(".{0,8}", 0..3)
}

fn some<T: std::fmt::Debug>(
    of: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(of)
}

fn sizes() -> impl Strategy<Value = [Option<[usize; 2]>; 3]> {
    let size = || some(any::<[usize; 2]>());
    [size(), size(), size()]
}

fn prompts() -> impl Strategy<Value = Request> {
    let list = || some(texts());
    (texts(), [list(), list(), list(), list(), list()]).prop_map(|(prompt, others)| {
        let mut request = Request::new(prompt);
        let [second, third, no, no_2, no_3] = others;
        (request.prompt_2, request.prompt_3) = (second, third);
        (request.negative_prompt, request.negative_prompt_2) = (no, no_2);
        request.negative_prompt_3 = no_3;
        request
    })
}

/// Any request, in every field that JSON can hold.
fn request() -> impl Strategy<Value = Request> {
    let count = || some(any::<usize>());
    let counts = [count(), count(), count(), count()];
    let scales = [
        some(number()),
        some(number()),
        some(number()),
        some(number()),
    ];
    let flags = (
        some(any::<bool>()),
        some(any::<bool>()),
        any::<bool>(),
        any::<bool>(),
    );
    let lists = (
        proptest::collection::vec(any::<usize>(), 0..3),
        some(proptest::collection::vec(number(), 0..3)),
        proptest::collection::vec(i128::from(i64::MIN)..=i128::from(u64::MAX), 0..3),
        some(".{0,8}"),
    );
    let plain = (any::<usize>(), any::<usize>(), number(), number());
    (prompts(), counts, scales, flags, lists, plain, sizes()).prop_map(
        |(mut request, counts, scales, flags, lists, plain, sizes)| {
            [
                request.height,
                request.width,
                request.num_inference_steps,
                request.max_sequence_length,
            ] = counts;
            [
                request.guidance_scale,
                request.skip_layer_guidance_scale,
                request.skip_layer_guidance_start,
                request.skip_layer_guidance_stop,
            ] = scales;
            (
                request.use_resolution_binning,
                request.exact_diffusers,
                request.vae_tiling,
                request.allow_non_finite,
            ) = flags;
            (
                request.skip_guidance_layers,
                request.sigmas,
                request.seeds,
                request.scheduler,
            ) = lists;
            (
                request.clip_skip,
                request.num_images_per_prompt,
                request.guidance_rescale,
                request.true_cfg_scale,
            ) = plain;
            [
                request.original_size,
                request.target_size,
                request.crops_coords_top_left,
            ] = sizes;
            request
        },
    )
}

proptest! {
    #[test]
    fn any_request_survives_its_json(request in request()) {
        let text = serde_json::to_string(&request).unwrap();
        let back: Request = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(format!("{back:?}"), format!("{request:?}"));
        let overlay = Overlay::of(&request).unwrap();
        prop_assert_eq!(&overlay, &Overlay::parse(&text).unwrap());
        prop_assert_eq!(format!("{:?}", overlay.request().unwrap()), format!("{request:?}"));
    }

    #[test]
    fn the_upper_overlay_wins(lower in request(), upper in request()) {
        let [lower, upper] = [lower, upper].map(|request| serde_json::to_value(request).unwrap());
        let both = Overlay::of(&upper).unwrap().over(&Overlay::of(&lower).unwrap());
        let got = serde_json::to_value(both.request().unwrap()).unwrap();
        for (name, value) in got.as_object().unwrap() {
            let expected = upper.get(name).or(lower.get(name));
            prop_assert_eq!(Some(value), expected, "{}", name);
        }
    }
}

#[test]
fn what_is_default_is_not_written() {
    let text = serde_json::to_string(&Request::new("a")).unwrap();
    let expected = r#"{"prompt":["a"],"true_cfg_scale":1.0,"num_images_per_prompt":1,"seed":[42]}"#;
    assert_eq!(text, expected);
}

#[test]
fn one_value_is_a_list_of_one() {
    let request = |json: &str| serde_json::from_str::<Request>(json).unwrap();
    let one = request(r#"{"prompt": "a", "prompt_2": "b", "seed": -3}"#);
    assert_eq!(
        (one.prompt, one.prompt_2),
        (vec!["a".into()], Some(vec!["b".into()]))
    );
    assert_eq!(one.seeds, [-3]);
    let most =
        request(r#"{"prompt": ["a", "b"], "prompt_2": null, "seed": [18446744073709551615, 1]}"#);
    assert_eq!((most.prompt.len(), most.prompt_2), (2, None));
    assert_eq!(most.seeds, [i128::from(u64::MAX), 1]);
}

#[test]
fn null_takes_an_argument_back() {
    let base = Overlay::parse(r#"{"height": 64, "true_cfg_scale": 2.0}"#).unwrap();
    let line =
        Overlay::parse(r#"{"prompt": "a", "height": null, "true_cfg_scale": null}"#).unwrap();
    let request = line.over(&base).request().unwrap();
    assert_eq!((request.height, request.true_cfg_scale), (None, 1.0));
}

#[test]
fn what_is_wrong_with_a_field_is_told() {
    for (json, reason) in [
        (r#"{"prompt": "a", "heigth": 3}"#, "unknown field `heigth`"),
        (
            r#"{"prompt": "a", "latents": []}"#,
            "unknown field `latents`",
        ),
        (
            r#"{"prompt": "a", "prompt": "b"}"#,
            "duplicate field `prompt`",
        ),
        (
            r#"{"prompt": 3}"#,
            "`prompt`: invalid type: integer `3`, expected a text or a list of texts",
        ),
        (
            r#"{"seed": 1.5}"#,
            "`seed`: invalid type: floating point `1.5`, expected a whole number or a list of them",
        ),
        (r#"{"seed": [18446744073709551616]}"#, "expected i128"),
        (
            r#"{"prompt": "a", "height": -1, "width": 64}"#,
            "`height`: invalid value: integer `-1`, expected usize",
        ),
        (r#"{"target_size": [3]}"#, "invalid length 1"),
        (r#"{"skip_guidance_layers": 3}"#, "expected a sequence"),
        ("[]", "expected an object"),
        (r#"{"prompt": "a""#, "EOF"),
    ] {
        let error = Overlay::parse(json).unwrap_err().to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
}
