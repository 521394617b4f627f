#![allow(clippy::excessive_precision, reason = "numbers as Python prints them")]

//! Numbers that torch 2.15 drew with seed 7: for each length the first, middle and last value, then the first and
//! third of three more, so that the state left behind is seen too.

use half::{bf16, f16};

use super::*;
use crate::error::ErrorCategory;

type Row = (usize, [f64; 3], [f64; 2]);

const F32: &[Row] = &[
    (
        1,
        [
            -0.1467950940132141,
            -0.1467950940132141,
            -0.1467950940132141,
        ],
        [0.7861412763595581, -1.1143440008163452],
    ),
    (
        2,
        [-0.1467950940132141, 0.7861412763595581, 0.7861412763595581],
        [0.9468216300010681, 1.6907901763916016],
    ),
    (
        15,
        [-0.1467950940132141, 1.2323857545852661, 1.3954508304595947],
        [1.3470226526260376, 0.2027582824230194],
    ),
    (
        16,
        [-0.8201345205307007, 0.9265429973602295, 1.090165138244629],
        [0.13817265629768372, 0.317678302526474],
    ),
    (
        17,
        [-0.8201345205307007, -0.8489086031913757, -0.866701602935791],
        [-1.4157475233078003, 0.1736421138048172],
    ),
    (
        31,
        [-0.8201345205307007, 0.5035638809204102, 0.501121461391449],
        [-0.7803784608840942, 0.571880578994751],
    ),
    (
        33,
        [
            -0.8201345205307007,
            -1.5826646089553833,
            -1.6370213031768799,
        ],
        [-0.061548057943582535, 0.03714681789278984],
    ),
    (
        1000,
        [-0.8201345205307007, 0.6815142631530762, -0.8487755060195923],
        [-1.9595246315002441, -0.2741300165653229],
    ),
];

const F64: &[Row] = &[
    (
        1,
        [
            -0.1467950974849952,
            -0.1467950974849952,
            -0.1467950974849952,
        ],
        [0.7861412987235358, -1.1143440212610307],
    ),
    (
        15,
        [-0.1467950974849952, 1.2323857451651945, 1.3954507962006726],
        [1.3470226203485132, 0.202758282866977],
    ),
    (
        16,
        [
            0.06626753966449943,
            -0.8067815436367963,
            -1.0492146121597965,
        ],
        [2.4382081623118323, 2.4505412457460647],
    ),
    (
        17,
        [
            0.06626753966449943,
            -1.3131496578292892,
            -1.6677291342328766,
        ],
        [-0.1856879465353645, 0.6095122729395627],
    ),
    (
        33,
        [
            0.06626753966449943,
            0.12877206565947644,
            -0.4155986456482291,
        ],
        [0.07951028600703834, -0.49128478442383283],
    ),
    (
        1000,
        [
            0.06626753966449943,
            -0.7795661567745316,
            -0.47778118391520147,
        ],
        [0.07279179905143927, -1.886961503857152],
    ),
];

const BF16: &[Row] = &[
    (
        1,
        [-0.146484375, -0.146484375, -0.146484375],
        [0.78515625, -1.1171875],
    ),
    (15, [-0.146484375, 1.234375, 1.3984375], [1.34375, 0.203125]),
    (
        16,
        [-0.8203125, 0.92578125, 1.09375],
        [0.1376953125, 0.318359375],
    ),
    (17, [-0.8203125, -0.72265625, -1.359375], [2.4375, 2.453125]),
    (31, [-0.8203125, -1.5859375, -1.359375], [2.4375, 2.453125]),
    (33, [-0.8203125, -1.5859375, 0.259765625], [1.28125, 1.8125]),
    (
        1000,
        [-0.8203125, 0.6796875, 1.921875],
        [-0.98046875, -0.6796875],
    ),
];

const F16: &[Row] = &[
    (
        1,
        [-0.1468505859375, -0.1468505859375, -0.1468505859375],
        [0.7861328125, -1.1142578125],
    ),
    (
        15,
        [-0.1468505859375, 1.232421875, 1.3955078125],
        [1.3466796875, 0.2027587890625],
    ),
    (
        16,
        [-0.8203125, 0.9267578125, 1.08984375],
        [0.13818359375, 0.317626953125],
    ),
    (
        17,
        [-0.8203125, -0.724609375, -1.359375],
        [2.4375, 2.451171875],
    ),
    (
        33,
        [-0.8203125, -1.5830078125, 0.260009765625],
        [1.2802734375, 1.8154296875],
    ),
    (
        1000,
        [-0.8203125, 0.681640625, 1.9189453125],
        [-0.9814453125, -0.68017578125],
    ),
];

fn check<T: NoiseType>(rows: &[Row], tolerance: f64, widen: impl Fn(T) -> f64) {
    for (count, within, after) in rows {
        let mut generator = Generator::new(7);
        let noise: Vec<f64> = generator
            .randn::<T>(*count)
            .unwrap()
            .into_iter()
            .map(&widen)
            .collect();
        let next: Vec<f64> = generator
            .randn::<T>(3)
            .unwrap()
            .into_iter()
            .map(&widen)
            .collect();
        let found = [
            noise[0],
            noise[count / 2],
            noise[count - 1],
            next[0],
            next[2],
        ];
        for (found, expected) in found.iter().zip(within.iter().chain(after)) {
            let difference = (found - expected).abs();
            assert!(
                difference <= tolerance,
                "{count} numbers: {found} is not torch's {expected}"
            );
        }
    }
}

#[test]
fn f32_is_torch() {
    // torch's own SIMD variants differ by 2.3e-6; this is the bound that the project promises.
    check::<f32>(F32, 3e-6, f64::from);
}

#[test]
fn f64_is_torch() {
    // The last digits of ln, sin and cos depend on the C library.
    check::<f64>(F64, 1e-14, |value| value);
}

#[test]
fn halves_are_torch() {
    // A value next to a rounding border may fall on its other side: one unit of the last place below 4.
    check::<bf16>(BF16, 2.0 / 128.0, f64::from);
    check::<f16>(F16, 2.0 / 1024.0, f64::from);
}

#[test]
fn the_kept_value_survives_blocks_and_dtypes() {
    // One by one, then 20 at once, then one by one in f32 and in bf16, with seed 123.
    let mut generator = Generator::new(123);
    let first = generator.randn::<f32>(1).unwrap()[0];
    let block = generator.randn::<f32>(20).unwrap()[19];
    let kept = generator.randn::<f32>(1).unwrap()[0];
    let half = generator.randn::<bf16>(1).unwrap()[0].to_f32();
    let torch = [
        -0.11146711558103561,
        -0.3378387987613678,
        0.12036294490098953,
        -0.0283203125,
    ];
    for (found, expected) in [first, block, kept, half].into_iter().zip(torch) {
        assert!(
            (found - expected).abs() <= 3e-6,
            "{found} is not torch's {expected}"
        );
    }
}

#[test]
fn a_clone_draws_the_same() {
    let mut generator = Generator::new(1);
    generator.randn::<f32>(5).unwrap();
    let mut copy = generator.clone();
    assert_eq!(
        generator.randn::<f32>(40).unwrap(),
        copy.randn::<f32>(40).unwrap()
    );
}

#[test]
fn seeds_use_their_lower_half() {
    let of = |seed| {
        Generator::from_seed(seed)
            .unwrap()
            .randn::<f32>(20)
            .unwrap()
    };
    assert_eq!(of(-1), of(0xffff_ffff));
    assert_eq!(of((5 << 32) + 9), of(9));
    assert_ne!(of(9), of(10));
    for seed in [1_i128 << 64, i128::from(i64::MIN) - 1] {
        assert!(
            Generator::from_seed(seed)
                .unwrap_err()
                .to_string()
                .starts_with("`seed`"),
            "{seed}"
        );
    }
}

#[test]
fn several_generators_draw_one_item_each() {
    let mut three = [Generator::new(1), Generator::new(2), Generator::new(3)];
    let noise: Vec<f32> = randn_tensor(&[3, 5, 7], &mut three).unwrap();
    for (item, seed) in noise.chunks(35).zip(1..) {
        assert_eq!(item, Generator::new(seed).randn::<f32>(35).unwrap());
    }
    let whole: Vec<f32> = randn_tensor(&[3, 5, 7], &mut [Generator::new(1)]).unwrap();
    assert_eq!(whole, Generator::new(1).randn::<f32>(105).unwrap());
}

#[test]
fn impossible_shapes_are_errors() {
    assert!(randn_tensor::<f32>(&[2, 3], &mut []).is_err());
    assert!(randn_tensor::<f32>(&[3, 2], &mut [Generator::new(1), Generator::new(2)]).is_err());
    for shape in [&[usize::MAX, 2][..], &[1 << 62]] {
        let error = randn_tensor::<f32>(shape, &mut [Generator::new(1)]).unwrap_err();
        assert_eq!(error.category(), ErrorCategory::OutOfMemory, "{error}");
    }
    assert!(
        randn_tensor::<f32>(&[0, 4], &mut [Generator::new(1)])
            .unwrap()
            .is_empty()
    );
    assert!(
        randn_tensor::<f32>(&[2, 0], &mut [Generator::new(1), Generator::new(2)])
            .unwrap()
            .is_empty()
    );
}
