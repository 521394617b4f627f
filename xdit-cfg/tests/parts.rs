//! Rescales images whose rows are on several ranks, or that run patch by patch.

use proptest::prelude::*;
use xdit_cfg::{Branch, Error, Guidance, Guided, Scales};
use xdit_comm::{Axis, DeviceMesh, MeshShape, Shard, threads};
use xdit_kernels::{DType, Device, Tensor};

/// What a branch predicts for the whole images `[b, l, c]`; each entry has a spread and mean of its own.
fn prediction(branch: Branch, shape: [usize; 3]) -> Tensor {
    let [_, l, c] = shape;
    let value = |i: usize| {
        let entry = (i / (l * c)) as f32;
        let x = (i * 7919 + branch.index() * 104_729) % 2003;
        (x as f32 / 1000.0 - 1.0) * (1.0 + entry) + 0.1 * entry
    };
    let data: Vec<f32> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap()
}

fn predictions(branches: &[Branch], shape: [usize; 3], rows: Shard) -> Vec<Tensor> {
    let rows = |branch: &Branch| prediction(*branch, shape).narrow(1, rows.start, rows.len);
    branches.iter().map(|b| rows(b).unwrap()).collect()
}

const ROWS: [Axis; 2] = [Axis::new("row blocks"), Axis::new("rows")];
const PAIR: Axis = Axis::new("branches");

const SCALES: Scales = Scales {
    guidance: 6.0,
    rescale: 0.7,
    skip_layers: Some(2.8),
};

const TWO_BRANCHES: Scales = Scales {
    skip_layers: None,
    ..SCALES
};

fn whole(shape: [usize; 3]) -> Tensor {
    let all = Shard {
        start: 0,
        len: shape[1],
    };
    let guidance = Guidance::new(None).unwrap();
    let predictions = predictions(SCALES.branches(), shape, all);
    guidance.combine(&SCALES, &predictions).unwrap()
}

/// Parts one after another along the rows, compared with the whole: 1e-6 of the largest value. Only the order of the
/// f64 sums differs.
fn assert_whole(parts: &[Tensor], whole: &Tensor) {
    let views: Vec<_> = parts.iter().map(Tensor::view).collect();
    let joint = Tensor::cat(&views, 1)
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    let whole = whole.to_vec_blocking::<f32>().unwrap();
    assert_eq!(joint.len(), whole.len());
    let largest = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (got, expected) in joint.iter().zip(&whole) {
        assert!((got - expected).abs() <= 1e-6 * largest, "{got} {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn over_every_axis_of_a_mesh(
        batch in 1usize..3, tokens in 1usize..9, channels in 2usize..5,
        ulysses in 1usize..4, ring in 1usize..3, cfg in 1usize..3,
    ) {
        let shape = [batch, tokens, channels];
        let shape_of_ranks = MeshShape::new([(PAIR, cfg), (ROWS[0], ring), (ROWS[1], ulysses)]);
        let ranks = threads::run(ulysses * ring * cfg, move |world| {
            let mesh = DeviceMesh::new(&world, shape_of_ranks.clone())?;
            let part = mesh.coord(ROWS[0])? * ulysses + mesh.coord(ROWS[1])?;
            let rows = Shard::of(tokens, ulysses * ring, part);
            let guidance = Guidance::new(Some(mesh.group(PAIR)?.clone()))?;
            let predictions = predictions(guidance.branches(&SCALES), shape, rows);
            let guided = guidance.guide(&SCALES, &predictions)?;
            let sums = guided.sums().unwrap()
                .all_reduced(mesh.group(ROWS[1])?)?
                .all_reduced(mesh.group(ROWS[0])?)?;
            Ok((guided.rescaled(&sums)?, rows.len, world.stats()))
        }).unwrap();
        let whole = whole(shape);
        for (rank, ranks) in ranks.chunks(ulysses * ring).enumerate() {
            let parts: Vec<Tensor> = ranks.iter().map(|(out, ..)| out.clone()).collect();
            assert_whole(&parts, &whole);
            for (_, rows, stats) in ranks {
                let sent = |op, axis| {
                    let did = stats.get(&(op, Some(axis)));
                    did.map_or((0, 0), |did| (did.calls, did.bytes))
                };
                let sums = |degree: usize| {
                    (usize::from(degree > 1), (degree - 1) * 40 * batch)
                };
                prop_assert_eq!(sent("control", ROWS[1]), sums(ulysses));
                prop_assert_eq!(sent("control", ROWS[0]), sums(ring));
                // Three branches: rank 0 gives the conditional one, rank 1 the two others.
                let bytes = (1 + rank) * batch * rows * channels * 4;
                prop_assert_eq!(sent("all_gather", PAIR), if cfg > 1 { (1, bytes) } else { (0, 0) });
            }
        }
    }
}

#[test]
fn patch_by_patch() {
    let shape = [2, 7, 4];
    let guidance = Guidance::new(None).unwrap();
    let guided: Vec<Guided> = Shard::all(7, 3)
        .into_iter()
        .map(|rows| predictions(SCALES.branches(), shape, rows))
        .map(|predictions| guidance.guide(&SCALES, &predictions).unwrap())
        .collect();
    let mut sums = guided[0].sums().unwrap();
    for patch in &guided[1..] {
        sums.merge(&patch.sums().unwrap()).unwrap();
    }
    let parts: Vec<Tensor> = guided
        .into_iter()
        .map(|patch| patch.rescaled(&sums).unwrap())
        .collect();
    assert_whole(&parts, &whole(shape));
}

#[test]
fn the_sums_of_a_part_are_not_those_of_the_whole() {
    // What the pieces are for: each half by its own spread is another picture.
    let shape = [1, 2, 3];
    let guidance = Guidance::new(None).unwrap();
    let row = predictions(SCALES.branches(), shape, Shard { start: 1, len: 1 });
    let alone = guidance
        .combine(&SCALES, &row)
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    let whole = whole(shape).to_vec_blocking::<f32>().unwrap();
    let mut pairs = alone.iter().zip(&whole[3..]);
    assert!(pairs.any(|(a, b)| (a - b).abs() > 0.01));
}

fn guide(scales: &Scales, values: [&[f32]; 2]) -> Guided {
    let rows = |x: &[f32]| Tensor::from_slice(x, [1, x.len()], &Device::cpu()).unwrap();
    let guidance = Guidance::new(None).unwrap();
    guidance.guide(scales, &values.map(rows)).unwrap()
}

#[test]
fn a_constant_prediction_has_no_scale() {
    // 0.1 is no binary fraction: what rounding leaves of its spread must not count. And one element has none.
    for len in [1, 2, 1000] {
        let guided = guide(&TWO_BRANCHES, [&vec![0.1; len], &vec![0.3; len]]);
        let sums = guided.sums().unwrap();
        let error = guided.rescaled(&sums).unwrap_err();
        assert!(
            matches!(error, Error::Constant { entry: 0, count } if count == len as u64),
            "{error}"
        );
    }
    // A mean a hundred times the spread is still rescaled, to 1e-6.
    let cond: Vec<f32> = (0..64).map(|i| 64.0 + i as f32 / 64.0).collect();
    let uncond: Vec<f32> = cond.iter().map(|x| 2.0 * x).collect();
    let guided = guide(&TWO_BRANCHES, [&cond, &uncond]);
    let sums = guided.sums().unwrap();
    let out = guided
        .rescaled(&sums)
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    // guided = uncond + 6 · (cond − uncond) = −4 · cond, whose spread is 4 times that of cond.
    for (out, cond) in out.iter().zip(&cond) {
        let expected = -4.0 * cond * (0.7 / 4.0 + 0.3);
        assert!((out - expected).abs() <= 1e-6 * expected.abs(), "{out}");
    }
}

#[test]
fn nan_stays_visible() {
    let guided = guide(&TWO_BRANCHES, [&[f32::NAN, 1.0, 2.0], &[0.0, 1.0, 3.0]]);
    let sums = guided.sums().unwrap();
    let out = guided
        .rescaled(&sums)
        .unwrap()
        .to_vec_blocking::<f32>()
        .unwrap();
    assert!(out.iter().all(|x| x.is_nan()), "{out:?}");
}

#[test]
fn sums_of_another_batch_are_refused() {
    let one = guide(&TWO_BRANCHES, [&[1.0, 2.0], &[0.0, 1.5]])
        .sums()
        .unwrap();
    let guidance = Guidance::new(None).unwrap();
    let all = Shard { start: 0, len: 2 };
    let two = guidance
        .guide(&SCALES, &predictions(SCALES.branches(), [2, 2, 2], all))
        .unwrap();
    let mut sums = two.sums().unwrap();
    assert!(matches!(sums.merge(&one), Err(Error::Shape { .. })));
    assert!(matches!(two.rescaled(&one), Err(Error::Shape { .. })));
}

#[test]
fn both_ranks_see_every_branch() {
    let all = Shard { start: 0, len: 3 };
    for scales in [
        SCALES,
        TWO_BRANCHES,
        Scales {
            guidance: 1.0,
            ..SCALES
        },
    ] {
        let want = predictions(scales.branches(), [2, 3, 2], all);
        let want = want.iter().map(|x| x.to_dtype(DType::BF16).unwrap());
        let want: Vec<Tensor> = want.collect();
        let all_branches = want.clone();
        let seen = threads::run(2, move |cfg| {
            let guidance = Guidance::new(Some(cfg))?;
            let own = guidance.branches(&scales).iter();
            let own = own.map(|branch| all_branches[branch.index()].clone());
            let guided = guidance.guide(&scales, &own.collect::<Vec<_>>())?;
            let bytes = |x: &Tensor| {
                (
                    x.shape().to_vec(),
                    x.dtype(),
                    x.host_bytes_blocking().unwrap().to_vec(),
                )
            };
            Ok(guided.predictions().iter().map(bytes).collect::<Vec<_>>())
        });
        let want = want.iter().map(|x| {
            (
                x.shape().to_vec(),
                x.dtype(),
                x.host_bytes_blocking().unwrap().to_vec(),
            )
        });
        let want: Vec<_> = want.collect();
        assert_eq!(seen.unwrap(), [want.clone(), want]);
    }
}

#[test]
fn dtypes_of_empty_parts() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let none = prediction(Branch::Conditional, [2, 0, 3])
            .to_dtype(dtype)
            .unwrap();
        let guidance = Guidance::new(None).unwrap();
        let guided = guidance.guide(&SCALES, &vec![none; 3]).unwrap();
        assert_eq!(guided.into_prediction().shape(), [2, 0, 3]);
    }
}
