//! The files of `tests/golden`, the intermediate results of a run, and the distance between both.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use safetensors::SafeTensors;
use xdit_kernels::{Device, Tensor};
use xdit_models::{Error, Observer, Request};

/// A path below `tests/golden`, or below the folder that `XDIT_GOLDENS` names: where tests run without this source.
pub fn path(inside: &str) -> PathBuf {
    let carried = std::env::var_os("XDIT_GOLDENS").map(PathBuf::from);
    let golden = carried.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"));
    golden.join(inside)
}

/// The content of a file below `tests/golden`, unpacked if its name ends in `.gz`.
///
/// # Panics
/// If there is none, or it is damaged.
pub fn bytes(inside: &str) -> Vec<u8> {
    let path = path(inside);
    let stored = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !inside.ends_with(".gz") {
        return stored;
    }
    let mut content = Vec::new();
    GzDecoder::new(stored.as_slice())
        .read_to_end(&mut content)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    content
}

/// One golden file.
#[derive(Debug)]
pub struct Golden {
    bytes: Vec<u8>,
    /// The JSON object in its metadata.
    pub meta: serde_json::Value,
}

impl Golden {
    /// The file below `tests/golden`.
    ///
    /// # Panics
    /// If there is none, or it is damaged; so do the others, for what it does not hold.
    pub fn read(inside: &str) -> Self {
        let bytes = bytes(inside);
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

    /// The names of its tensors, sorted.
    pub fn names(&self) -> Vec<String> {
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

    /// Shape and values of an f32 tensor.
    pub fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.raw(name, safetensors::Dtype::F32);
        (
            shape,
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        )
    }

    /// An f32 tensor on a device.
    pub fn tensor(&self, name: &str, device: &Device) -> Tensor {
        let (shape, values) = self.f32(name);
        Tensor::from_slice(&values, shape.as_slice(), device).expect("a golden tensor")
    }

    /// Shape and values of a tensor of bytes.
    pub fn u8(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        self.raw(name, safetensors::Dtype::U8)
    }

    /// The pixels of the PNG, [B, H, W, 3], from the `image` [B, 3, H, W] in [0, 1]: the generator has seen diffusers
    /// round so.
    pub fn pixels(&self) -> Vec<u8> {
        let (shape, image) = self.f32("image");
        let area = shape[2] * shape[3];
        image
            .chunks_exact(3 * area)
            .flat_map(|planes| (0..area).flat_map(|i| [0, 1, 2].map(|c| planes[c * area + i])))
            .map(|value| (255.0 * value).round_ties_even() as u8)
            .collect()
    }

    /// Whether a tensor holds whole numbers.
    pub fn is_whole(&self, name: &str) -> bool {
        let tensor = self.tensors().tensor(name).map(|tensor| tensor.dtype());
        tensor.is_ok_and(|dtype| dtype == safetensors::Dtype::I64)
    }

    /// Rows of token ids, or of other whole numbers.
    pub fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let (shape, bytes) = self.raw(name, safetensors::Dtype::I64);
        let ids: Vec<u32> = bytes
            .chunks_exact(8)
            .map(|b| {
                u32::try_from(i64::from_le_bytes(b.try_into().expect("8 bytes"))).expect("an id")
            })
            .collect();
        let row = shape.last().copied().unwrap_or(1);
        ids.chunks(row).map(<[u32]>::to_vec).collect()
    }
}

/// Keeps everything that a run shows; the first tensor of a name stays.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Token ids by name.
    pub ids: BTreeMap<String, Vec<Vec<u32>>>,
    /// Warnings in order.
    pub warnings: Vec<String>,
}

impl Recorder {
    /// The values of a tensor that was shown.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn values(&self, name: &str) -> Vec<f32> {
        values(self.tensors.get(name).expect("a tensor that was shown"))
    }
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

/// The values of an f32 tensor.
///
/// # Panics
/// If it has another dtype.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_blocking().expect("an f32 tensor")
}

/// ‖got - want‖ / ‖want‖.
pub fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
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
pub fn max_abs(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter()
        .zip(want)
        .map(|(g, w)| f64::from((g - w).abs()))
        // NaN is the largest, wherever it stands.
        .fold(0.0, |worst: f64, d| {
            if worst.is_nan() || d <= worst {
                worst
            } else {
                d
            }
        })
}

/// Whether a difference is in tolerance; NaN is not.
pub fn within(difference: f64, tolerance: f64) -> bool {
    difference <= tolerance
}

/// The recorded call of a golden, as far as its metadata says.
///
/// # Panics
/// If that is not what the generator writes.
pub fn request(meta: &serde_json::Value) -> Request {
    use serde_json::Value;
    let call = &meta["call"];
    let texts = |field: &str| match &call[field] {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => Some(
            list.iter()
                .map(|t| t.as_str().expect("a text").to_owned())
                .collect(),
        ),
        _ => None,
    };
    let count = |field: &str| call[field].as_u64().map(|n| n as usize);
    let mut request = Request::new(texts("prompt").expect("a prompt"));
    request.prompt_2 = texts("prompt_2");
    request.prompt_3 = texts("prompt_3");
    request.negative_prompt = texts("negative_prompt");
    request.negative_prompt_2 = texts("negative_prompt_2");
    request.negative_prompt_3 = texts("negative_prompt_3");
    request.height = count("height");
    request.width = count("width");
    request.num_inference_steps = count("num_inference_steps");
    request.max_sequence_length = count("max_sequence_length");
    request.num_images_per_prompt = count("num_images_per_prompt").unwrap_or(1);
    request.guidance_scale = call["guidance_scale"].as_f64();
    let number = |field: &str, default: f64| call[field].as_f64().unwrap_or(default);
    request.true_cfg_scale = number("true_cfg_scale", 1.0);
    request.clip_skip = count("clip_skip").unwrap_or(0);
    if let Some(list) = call["skip_guidance_layers"].as_array() {
        let blocks = list.iter().map(|n| n.as_u64().expect("a block") as usize);
        request.skip_guidance_layers = blocks.collect();
    }
    let skips = !request.skip_guidance_layers.is_empty();
    let number_of = |field: &str| call[field].as_f64().filter(|_| skips);
    request.skip_layer_guidance_scale = number_of("skip_layer_guidance_scale");
    request.skip_layer_guidance_start = number_of("skip_layer_guidance_start");
    request.skip_layer_guidance_stop = number_of("skip_layer_guidance_stop");
    request.sigmas = call["sigmas"]
        .as_array()
        .map(|list| list.iter().map(|s| s.as_f64().expect("a number")).collect());
    request.scheduler = meta["scheduler"].as_str().map(ToString::to_string);
    request.guidance_rescale = number("guidance_rescale", 0.0);
    request.use_resolution_binning = call["use_resolution_binning"].as_bool();
    let pair = |field: &str| {
        let list = call[field].as_array()?;
        let numbers = list.iter().map(|n| n.as_u64().expect("pixels") as usize);
        Some(numbers.collect::<Vec<_>>().try_into().expect("two numbers"))
    };
    // What was recorded of several prompts with several images each holds diffusers' fault.
    let hunyuan = meta["pipeline"]
        .as_str()
        .is_some_and(|name| name.starts_with("hunyuan"));
    let several = request.prompt.len() > 1 && request.num_images_per_prompt > 1;
    request.exact_diffusers = Some(hunyuan && several);
    request.original_size = pair("original_size");
    request.target_size = pair("target_size");
    request.crops_coords_top_left = pair("crops_coords_top_left");
    match &meta["seeds"] {
        Value::Array(list) => request.seeds(list.iter().map(|seed| seed.as_i64().expect("a seed"))),
        seed => request.seed(seed.as_i64().expect("a seed")),
    }
}
