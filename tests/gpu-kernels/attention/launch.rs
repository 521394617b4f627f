//! Launches of a case by the interpreter, and the comparison with what the processor computes.

use ptx_interp::{FlatMemory, Launch, Module, Options, Swizzle, TensorMap, launch};
use xdit_kernels::DType;

use super::{
    case::Case,
    data::{Data, bytes, number},
};
use crate::case::Kernels;

/// What lies in outputs before a launch, and between their rows after it.
const UNTOUCHED: u8 = 0xa5;

/// The kernels of the three files.
pub(super) struct Modules {
    pub(super) flash: Kernels,
    pub(super) wgmma: Kernels,
    pub(super) fma: Kernels,
}

impl Modules {
    /// Those that the case runs.
    pub(super) fn of(&self, case: &Case) -> &Kernels {
        if case.on_fma() {
            &self.fma
        } else if case.on_wgmma() {
            &self.wgmma
        } else {
            &self.flash
        }
    }
}

/// Runs the kernel of the case. `Err` says what is wrong: a report, or a result.
pub(super) fn run(case: &Case, modules: &Modules, options: &Options) -> Result<(), String> {
    let module = &modules.of(case).module;
    let data = Data::of(case);
    let mut placed = Placed::of(case, &data);
    let split = case.split.unwrap_or(case.lk);
    placed.launch(case, module, 0..split, false, options)?;
    if split < case.lk {
        placed.launch(case, module, split..case.lk, true, options)?;
    }
    placed.compare(case, &data)
}

/// Operands and outputs of a case in the interpreter's memory: rows have gaps of NaN between them.
struct Placed {
    memory: FlatMemory,
    q: u64,
    k: u64,
    v: u64,
    out: u64,
    lse: u64,
    key_mask: u64,
    bias: u64,
    /// Elements from row to row of heads.
    pitch: usize,
    out_size: usize,
}

impl Placed {
    fn of(case: &Case, data: &Data) -> Self {
        let mut memory = FlatMemory::new();
        let (h, d) = (case.h_kv * case.group, case.d);
        let pitch = d + 8;
        let mut rows = |x: &[f32]| {
            let padded = x.chunks(d).flat_map(|row| {
                let gap = [f32::NAN; 8];
                row.iter().copied().chain(gap)
            });
            memory.put(
                &padded
                    .flat_map(|x| bytes(x, case.dtype))
                    .collect::<Vec<u8>>(),
            )
        };
        let (q, k, v) = (rows(&data.q), rows(&data.k), rows(&data.v));
        let out_size = if case.out_f32 { 4 } else { case.dtype.size() };
        let out = memory.put(&vec![UNTOUCHED; case.b * case.lq * h * pitch * out_size]);
        let lse = memory.put(&vec![UNTOUCHED; case.b * h * (case.lq + 1) * 4]);
        let key_mask = data.key_mask.as_ref().map_or(0, |mask| memory.put(mask));
        let bias = data.bias.as_ref().map_or(0, |(x, _)| memory.put_f32(x));
        Self {
            memory,
            q,
            k,
            v,
            out,
            lse,
            key_mask,
            bias,
            pitch,
            out_size,
        }
    }

    /// The descriptor of q, k or v: `heads` heads of `rows` rows, of which there are `all` in memory.
    fn map(&self, case: &Case, address: u64, heads: usize, rows: usize, all: usize) -> [u8; 128] {
        let width = if case.padded().is_multiple_of(64) {
            64
        } else {
            32
        };
        let pitch = (self.pitch * case.dtype.size()) as u64;
        let (heads, rows, all) = (heads as u64, rows as u64, all as u64);
        let map = TensorMap {
            address,
            element: case.dtype.size(),
            dims: vec![case.d as u64, heads, rows, case.b as u64],
            strides: vec![pitch, pitch * heads, pitch * heads * all],
            tile: vec![width, 1, 128, 1],
            swizzle: if width == 64 {
                Swizzle::Bytes128
            } else {
                Swizzle::Bytes64
            },
        };
        map.encode().expect("a tensor that the copy unit reads")
    }

    /// The parameters of a kernel, `Buffers` and `FlashCall` of `call.cuh`, for some of the keys.
    fn params(&self, case: &Case, keys: &std::ops::Range<usize>, accumulates: bool) -> Vec<u8> {
        let (h, h_kv, pitch) = (case.h_kv * case.group, case.h_kv, self.pitch);
        let skipped = (keys.start * h_kv * pitch * case.dtype.size()) as u64;
        // Null where there is none.
        let from_key = |address: u64, size: usize| match address {
            0 => 0,
            address => address + (keys.start * size) as u64,
        };
        let (mask, bias) = (from_key(self.key_mask, 1), from_key(self.bias, 4));
        let one = case.bias.unwrap_or([true; 3]);
        let sizes = [case.b, h, case.lq];
        let of = |i: usize| if one[i] { 1 } else { sizes[i] };
        let dense = [of(1) * of(2) * case.lk, of(2) * case.lk, case.lk];
        let bias_strides = [0, 1, 2].map(|i| if one[i] { 0 } else { dense[i] });
        let pointers = [
            self.q,
            self.k + skipped,
            self.v + skipped,
            self.out,
            self.lse,
            mask,
            bias,
        ];
        let of_l = |l: usize, h: usize| [l * h * pitch, h * pitch, pitch];
        let mut strides: Vec<usize> = Vec::new();
        for (l, h) in [(case.lq, h), (case.lk, h_kv), (case.lk, h_kv)] {
            strides.extend(of_l(l, h));
            strides.push(1);
        }
        strides.extend(of_l(case.lq, h));
        strides.extend([h * (case.lq + 1), case.lq + 1, 1]);
        strides.extend([case.lk, 1]);
        strides.extend(bias_strides);
        let queries = if case.on_fma() { 64 } else { 128 };
        let tiles = case.lq.div_ceil(queries);
        let scale = case.scale.unwrap_or(1.0 / (case.d as f32).sqrt()) * std::f32::consts::LOG2_E;
        let mut out: Vec<u8> = pointers.iter().flat_map(|x| x.to_le_bytes()).collect();
        if case.on_wgmma() {
            // Descriptors instead of three addresses; and neither a mask nor a bias.
            let [k, v] =
                [pointers[1], pointers[2]].map(|at| self.map(case, at, h_kv, keys.len(), case.lk));
            out = [self.map(case, self.q, h, case.lq, case.lq), k, v].concat();
            out.extend([self.out, self.lse].iter().flat_map(|x| x.to_le_bytes()));
        }
        out.extend(strides.iter().flat_map(|&x| (x as u64).to_le_bytes()));
        let ints = [case.lq, keys.len(), h, case.group, case.d, tiles];
        out.extend(ints.iter().flat_map(|&x| (x as u32).to_le_bytes()));
        out.extend(scale.to_le_bytes());
        for flag in [case.causal, accumulates, case.out_f32] {
            out.extend(u32::from(flag).to_le_bytes());
        }
        if case.on_wgmma() {
            out.extend(((tiles * h * case.b) as u32).to_le_bytes());
        }
        out
    }

    fn launch(
        &mut self,
        case: &Case,
        module: &Module,
        keys: std::ops::Range<usize>,
        accumulates: bool,
        options: &Options,
    ) -> Result<(), String> {
        let kernel = case.kernel();
        let entry = module
            .entry(&kernel)
            .unwrap_or_else(|| panic!("no kernel {kernel}"));
        let params = self.params(case, &keys, accumulates);
        assert_eq!(params.len(), entry.param_bytes(), "FlashCall of call.cuh");
        let variables = self.memory.put_variables(module);
        let (queries, threads, shared_bytes) = if case.on_fma() {
            (64, 256, 0)
        } else if case.on_wgmma() {
            (128, 384, 1024 + 7 * 128 * case.padded() * 2 + 14 * 8)
        } else {
            (128, 128, (128 + 3 * 64) * case.padded() * 2)
        };
        let mut blocks = case.lq.div_ceil(queries) * case.h_kv * case.group * case.b;
        if case.on_wgmma() {
            // Blocks compute several units in turn.
            blocks = blocks.div_ceil(2);
        }
        let call = Launch {
            grid: [blocks as u32, 1, 1],
            block: [threads, 1, 1],
            shared_bytes,
            params: &params,
            variables: &variables,
        };
        launch(entry, &call, &mut self.memory, options)
            .map(drop)
            .map_err(|report| report.to_string())
    }

    fn compare(&mut self, case: &Case, data: &Data) -> Result<(), String> {
        let (out, lse) = data.expected(case);
        let (h, d) = (case.h_kv * case.group, case.d);
        let read = |memory: &mut FlatMemory, at: u64, size: usize| {
            memory.bytes(at, size).map_err(|fault| fault.message)
        };
        let lse_bytes = read(&mut self.memory, self.lse, case.b * h * (case.lq + 1) * 4)?;
        for (row, line) in lse_bytes.chunks(4 * (case.lq + 1)).enumerate() {
            for (i, raw) in line.chunks(4).enumerate() {
                let Some(&want) = lse.get(row * case.lq + i).filter(|_| i < case.lq) else {
                    if raw != [UNTOUCHED; 4] {
                        return Err(format!("something behind row {row} of lse"));
                    }
                    continue;
                };
                let got = f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
                // Scores are sums of up to 512 terms in another order, of size 3 · spread each before the scale.
                let far = 2e-6 * (1.0 + want.abs() + 3.0 * case.spread);
                if !(got == want || (got - want).abs() <= far) {
                    return Err(format!("lse {i} of row {row} is {got}, not {want}"));
                }
            }
        }
        let size = self.out_size;
        let raw = read(
            &mut self.memory,
            self.out,
            out.len() / d * self.pitch * size,
        )?;
        let dtype = if size == 4 { DType::F32 } else { case.dtype };
        // Values are up to 1. Weights on the tensor units are rounded to 8 or 11 bits, and so are 16-bit results; in f32 a weight
        // is as precise as its score, of size 3 · spread.
        let far = match case.dtype {
            DType::BF16 if !case.on_fma() => 1.0 / 128.0,
            DType::F16 if !case.on_fma() => 1.0 / 1024.0,
            _ if size == 4 => 1e-6 * (1.0 + 3.0 * case.spread),
            DType::BF16 => 1.0 / 256.0,
            _ => 1.0 / 2048.0,
        };
        for (row, line) in raw.chunks(self.pitch * size).enumerate() {
            let (data, gap) = line.split_at(d * size);
            if gap.iter().any(|&byte| byte != UNTOUCHED) {
                return Err(format!("something behind row {row} of out"));
            }
            for (c, raw) in data.chunks(size).enumerate() {
                let (got, want) = (number(raw, dtype), out[row * d + c]);
                if !(got == want || (got - want).abs() <= far) {
                    return Err(format!("out {c} of row {row} is {got}, not {want}"));
                }
            }
        }
        Ok(())
    }
}
