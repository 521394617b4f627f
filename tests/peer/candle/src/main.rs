//! Serves `flux_blocks` of the benchmark protocol (see ../../server) with candle-transformers' Flux: one double and one
//! single block of FLUX.1-dev's size, random weights. A request for bf16 is answered in candle's bf16.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::flux::{WithForward, model};
use serde_json::{Value, json};
use std::io::{BufRead, Write};

struct Case {
    flux: model::Flux,
    tensors: [Tensor; 6],
    guidance: Tensor,
}

impl Case {
    fn new(dtype: DType, image_tokens: usize, text_tokens: usize) -> Result<Self> {
        let device = Device::Cpu;
        let config = model::Config { depth: 1, depth_single_blocks: 1, ..model::Config::dev() };
        let vars = VarMap::new();
        let flux = model::Flux::new(&config, VarBuilder::from_varmap(&vars, dtype, &device))?;
        let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &device)?.to_dtype(dtype);
        let side = (image_tokens as f64).sqrt() as usize;
        let ids: Vec<f32> =
            (0..image_tokens).flat_map(|i| [0., (i / side) as f32, (i % side) as f32]).collect();
        let tensors = [
            random(&[1, image_tokens, 64])?,
            Tensor::from_vec(ids, (1, image_tokens, 3), &device)?.to_dtype(dtype)?,
            random(&[1, text_tokens, 4096])?,
            Tensor::zeros((1, text_tokens, 3), dtype, &device)?,
            Tensor::new(&[0.7f32], &device)?.to_dtype(dtype)?,
            random(&[1, 768])?,
        ];
        let guidance = Tensor::new(&[3.5f32], &device)?.to_dtype(dtype)?;
        Ok(Self { flux, tensors, guidance })
    }

    fn run(&self) -> Result<f32> {
        let [img, img_ids, txt, txt_ids, t, y] = &self.tensors;
        let out = self.flux.forward(img, img_ids, txt, txt_ids, t, y, Some(&self.guidance))?;
        out.to_dtype(DType::F32)?.abs()?.max_all()?.to_scalar()
    }
}

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(candle_core::Error::wrap)?;
    let mut case = None;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?).map_err(candle_core::Error::wrap)?;
        let size = |key: &str| request[key].as_u64().unwrap_or(1) as usize;
        let answer = match request["op"].as_str() {
            Some("flux_blocks") => {
                let dtype = if request["dtype"] == "bf16" { DType::BF16 } else { DType::F32 };
                case = Some(Case::new(dtype, size("image_tokens"), size("text_tokens"))?);
                json!({"id": 0})
            }
            Some("run") => {
                let start = std::time::Instant::now();
                if let Some(case) = &case {
                    for _ in 0..size("reps") {
                        std::hint::black_box(case.run()?);
                    }
                }
                json!({"ns": start.elapsed().as_nanos() as u64})
            }
            _ => {
                case = None;
                json!({})
            }
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
