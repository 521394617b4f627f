//! Golden files, what a run shows of itself, and how far the two are apart.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use xdit_kernels::Tensor;
use xdit_models::{Error, Observer};
use xdit_tests::goldens;

pub(crate) use xdit_tests::goldens::path;

/// One golden file.
pub(crate) struct Golden {
    bytes: Vec<u8>,
    /// The JSON object in its metadata.
    pub(crate) meta: serde_json::Value,
}

impl Golden {
    pub(crate) fn read(inside: &str) -> Self {
        let bytes = goldens::bytes(inside);
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let meta = header.metadata().as_ref().and_then(|map| map.get("golden"));
        let meta = meta.map(|text| serde_json::from_str(text).expect("JSON metadata"));
        Self {
            meta: meta.unwrap_or_default(),
            bytes,
        }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("a safetensors file")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .tensors()
            .names()
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort_unstable();
        names
    }

    fn raw(&self, name: &str, dtype: safetensors::Dtype) -> (Vec<usize>, Vec<u8>) {
        let tensors = self.tensors();
        let tensor = tensors
            .tensor(name)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub(crate) fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.raw(name, safetensors::Dtype::F32);
        (
            shape,
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        )
    }

    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        let (shape, values) = self.f32(name);
        Tensor::from_slice(&values, shape.as_slice()).expect("a golden tensor")
    }

    pub(crate) fn u8(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        self.raw(name, safetensors::Dtype::U8)
    }

    /// The pixels of the PNG, [B, H, W, 3], from the `image` [B, 3, H, W] in [0, 1]: the generator has seen diffusers
    /// round so.
    pub(crate) fn pixels(&self) -> Vec<u8> {
        let (shape, image) = self.f32("image");
        let area = shape[2] * shape[3];
        image
            .chunks_exact(3 * area)
            .flat_map(|planes| (0..area).flat_map(|i| [0, 1, 2].map(|c| planes[c * area + i])))
            .map(|value| (255.0 * value).round_ties_even() as u8)
            .collect()
    }

    /// Rows of token ids.
    pub(crate) fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let (shape, bytes) = self.raw(name, safetensors::Dtype::I64);
        let ids: Vec<u32> = bytes
            .chunks_exact(8)
            .map(|b| {
                u32::try_from(i64::from_le_bytes(b.try_into().expect("8 bytes"))).expect("an id")
            })
            .collect();
        ids.chunks(shape[1]).map(<[u32]>::to_vec).collect()
    }
}

/// Keeps everything that a run shows; the first tensor of a name stays.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) ids: BTreeMap<String, Vec<Vec<u32>>>,
    pub(crate) warnings: Vec<String>,
}

impl Observer for Recorder {
    fn wants_tensors(&self) -> bool {
        true
    }

    fn tensor(
        &mut self,
        name: &str,
        make: &dyn Fn() -> Result<Tensor, Error>,
    ) -> Result<(), Error> {
        if !self.tensors.contains_key(name) {
            self.tensors.insert(name.to_owned(), make()?);
        }
        Ok(())
    }

    fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        self.ids.insert(name.to_owned(), ids.to_vec());
    }

    fn warning(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }
}

/// ‖got - want‖ / ‖want‖.
pub(crate) fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let apart: f64 = got
        .iter()
        .zip(want)
        .map(|(g, w)| square(f64::from(*g) - f64::from(*w)))
        .sum();
    let norm: f64 = want.iter().map(|w| square(f64::from(*w))).sum();
    (apart / norm.max(f64::MIN_POSITIVE)).sqrt()
}

/// The largest |got - want|.
pub(crate) fn max_abs(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter()
        .zip(want)
        .map(|(g, w)| f64::from((g - w).abs()))
        .fold(0.0, |worst, d| if d <= worst { worst } else { d })
}

/// Whether a difference is in tolerance; NaN is not.
pub(crate) fn within(difference: f64, tolerance: f64) -> bool {
    difference <= tolerance
}
