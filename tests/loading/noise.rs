//! torch's CPU generator, draw by draw: `noise.safetensors.gz`.

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use xdit_models::noise::{Generator, NoiseType, randn_tensor};

use xdit_tests::goldens;

/// What a draw gives as f64, whatever its dtype.
fn draw(dtype: &str, shape: &[usize], generators: &mut [Generator]) -> Vec<f64> {
    fn of<T: NoiseType>(
        shape: &[usize],
        generators: &mut [Generator],
        widen: fn(T) -> f64,
    ) -> Vec<f64> {
        randn_tensor(shape, generators)
            .expect("a small draw")
            .into_iter()
            .map(widen)
            .collect()
    }
    match dtype {
        "f32" => of::<f32>(shape, generators, f64::from),
        "f64" => of::<f64>(shape, generators, |value| value),
        "bf16" => of::<bf16>(shape, generators, f64::from),
        "f16" => of::<f16>(shape, generators, f64::from),
        other => panic!("a golden of dtype {other}"),
    }
}

fn stored(view: &TensorView<'_>, dtype: &str) -> Vec<f64> {
    let bytes = view.data();
    match dtype {
        "f32" => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)))
            .collect(),
        "f64" => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect(),
        "bf16" => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from(bf16::from_le_bytes(*b)))
            .collect(),
        _ => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from(f16::from_le_bytes(*b)))
            .collect(),
    }
}

fn compare(name: &str, dtype: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let tolerance = match dtype {
            // torch's own SIMD variants differ by 2.3e-6.
            "f32" => 3e-6,
            // ln, sin and cos of another C library.
            "f64" => 1e-14,
            // The f32 values above, and a rounding border between: one unit in the last place.
            "bf16" => 3e-6 + expected.abs() / 128.0,
            _ => 3e-6 + expected.abs() / 1024.0,
        };
        assert!(
            (found - expected).abs() <= tolerance,
            "{name}[{i}]: {found} is not torch's {expected}"
        );
    }
}

fn seed(text: &str) -> Generator {
    Generator::from_seed(text.parse().expect("a seed")).expect("a seed that torch takes")
}

fn dims(text: &str) -> Vec<usize> {
    text.split(['x', '+'])
        .map(|dim| dim.parse().expect("a dim"))
        .collect()
}

#[test]
fn every_draw_is_torchs() {
    let bytes = goldens::bytes("noise.safetensors.gz");
    let file = SafeTensors::deserialize(&bytes).expect("a golden file");
    let mut checked = 0;
    for (name, view) in file.tensors() {
        let parts: Vec<&str> = name.split('.').collect();
        let (dtype, found) = match parts.as_slice() {
            ["randn", dtype, start, size] => {
                let (_, size) = size.split_once('=').expect("size=");
                (*dtype, draw(dtype, &dims(size), &mut [seed(value(start))]))
            }
            ["sequence", dtype, start, sizes, index] => {
                let mut generator = [seed(value(start))];
                let index: usize = index.parse().expect("an index");
                let mut draws = dims(value(sizes))
                    .into_iter()
                    .map(|size| draw(dtype, &[size], &mut generator));
                (*dtype, draws.nth(index).expect("a draw of the sequence"))
            }
            ["shape", dtype, start, shape] => {
                (*dtype, draw(dtype, &dims(shape), &mut [seed(value(start))]))
            }
            ["randn_tensor", dtype, seeds, shape] => {
                let mut generators: Vec<Generator> = value(seeds).split(',').map(seed).collect();
                (*dtype, draw(dtype, &dims(shape), &mut generators))
            }
            ["mixed", ..] => continue,
            _ => panic!("a golden called {name}"),
        };
        compare(&name, dtype, &found, &stored(&view, dtype));
        checked += 1;
    }
    assert!(checked > 100, "only {checked} draws were compared");
}

#[test]
fn one_generator_serves_every_dtype() {
    let bytes = goldens::bytes("noise.safetensors.gz");
    let file = SafeTensors::deserialize(&bytes).expect("a golden file");
    let mut mixed: Vec<_> = file
        .tensors()
        .into_iter()
        .filter(|(name, _)| name.starts_with("mixed."))
        .collect();
    mixed.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(mixed.len(), 6, "the golden holds six mixed draws");
    let mut generator = [Generator::new(9)];
    for (name, view) in mixed {
        let dtype = name.split('.').nth(3).expect("mixed.seed.index.dtype.size");
        let found = draw(dtype, view.shape(), &mut generator);
        compare(&name, dtype, &found, &stored(&view, dtype));
    }
}

/// What follows `=`.
fn value(part: &str) -> &str {
    part.split_once('=').expect("key=value").1
}
