//! Every kernel given operands of two devices, one operand after another, also where the tensors are empty: the error names both.

use crate::{
    DType, Result,
    activation::{self as act, Activation},
    attention::{Attention, AttnInput, Flash, Mask, flash_accumulate_into, flash_into},
    conv2d::{Conv2d, Conv2dOptions},
    dispatch_operands::Operands,
    elementwise as el, embedding as em, group_norm as gn, layout,
    linear::{Epilogue, Linear},
    merge as me, norm, pixels,
    rope::{self, HeadNorm, QkNormRope},
    softmax as so,
    sums::RunningSums,
    testing::{assert_two_devices, test_devices},
    upsample as up,
};
use std::cell::Cell;

type Kernel = fn(&Operands<'_>) -> Result<()>;

/// Each public kernel by the name that its errors begin with. Those that make their own output end in those that write into one.
fn kernels() -> Vec<(&'static str, Kernel)> {
    let mut all: Vec<(&'static str, Kernel)> = row_kernels();
    all.extend(scalar_kernels());
    all.extend(picture_kernels());
    all.extend(attention_kernels());
    all
}

fn row_kernels() -> Vec<(&'static str, Kernel)> {
    vec![
        ("activation", |o| {
            let mut out = o.rows_out();
            act::activation_into(&o.rows(), Activation::Silu, out.view_mut())
        }),
        ("gated", |o| {
            let (x, y, mut out) = (o.rows(), o.rows(), o.rows_out());
            act::gated_into(&x, &y, Activation::Silu, out.view_mut())
        }),
        ("embedding", |o| {
            let (table, ids) = (o.tensor(&[3, 4]), o.of(&[o.n], DType::U32));
            em::embedding_into(&table, &ids, o.rows_out().view_mut())
        }),
        ("copy", |o| {
            layout::copy_into(&o.rows(), o.rows_out().view_mut())
        }),
        ("copy", |o| {
            let (x, y, mut a, mut b) = (o.rows(), o.rows(), o.rows_out(), o.rows_out());
            layout::copy_each(vec![(x.view(), a.view_mut()), (y.view(), b.view_mut())])
        }),
        ("cat", |o| {
            let (x, y) = (o.rows(), o.rows());
            layout::cat(&[x.view(), y.view()], 0).map(drop)
        }),
        ("layer_norm", |o| {
            let (x, weight, bias) = (o.rows(), o.vector(), o.vector());
            let (weight, bias) = (Some(weight.view()), Some(bias.view()));
            norm::layer_norm_into(&x, weight, bias, 1e-6, o.rows_out().view_mut())
        }),
        ("layer_norm_modulate", |o| {
            let (x, shift, scale) = (o.tokens(), o.rows(), o.rows());
            let mut out = o.output(&[o.n, 2, 4]);
            norm::layer_norm_modulate_into(&x, &shift, &scale, 1e-6, out.view_mut())
        }),
        ("layer_norm_shift", |o| {
            let (x, weight, shift) = (o.tokens(), o.vector(), o.rows());
            let mut out = o.output(&[o.n, 2, 4]);
            norm::layer_norm_shift_into(&x, &weight, &shift, 1e-6, out.view_mut())
        }),
        ("rms_norm", |o| {
            let (x, weight) = (o.rows(), o.vector());
            norm::rms_norm_into(&x, Some(weight.view()), 1e-6, o.rows_out().view_mut())
        }),
        ("softmax", |o| {
            so::softmax_into(&o.rows(), o.rows_out().view_mut())
        }),
        ("linear", |o| {
            let weight = o.tensor(&[3, 4]);
            let linear = Linear::pack(weight.view(), None, DType::F32, weight.device())?;
            let (x, y) = (o.tensor(&[o.n, 2, 2]), o.tensor(&[o.n, 2, 2]));
            let (gate, residual) = (o.tensor(&[o.n, 3]), o.tensor(&[o.n, 2, 3]));
            let epilogue = Epilogue::GateResidual {
                gate: gate.view(),
                residual: residual.view(),
            };
            let mut out = o.output(&[o.n, 2, 3]);
            linear.forward_into(&[x.view(), y.view()], epilogue, out.view_mut())
        }),
    ]
}

fn scalar_kernels() -> Vec<(&'static str, Kernel)> {
    vec![
        ("add", |o| {
            let (x, y, mut out) = (o.rows(), o.vector(), o.rows_out());
            el::add_into(&x, &y, out.view_mut())
        }),
        ("sub", |o| {
            let (x, y, mut out) = (o.rows(), o.vector(), o.rows_out());
            el::sub_into(&x, &y, out.view_mut())
        }),
        ("mul", |o| {
            let (x, y, mut out) = (o.rows(), o.vector(), o.rows_out());
            el::mul_into(&x, &y, out.view_mut())
        }),
        ("add_scaled", |o| {
            let (x, y, mut out) = (o.rows(), o.vector(), o.rows_out());
            el::add_scaled_into(&x, &y, 2.0, out.view_mut())
        }),
        ("weighted_sum", |o| {
            let (x, y, mut out) = (o.rows(), o.vector(), o.rows_out());
            el::weighted_sum_into(&x, 2.0, &y, 3.0, out.view_mut())
        }),
        ("scale", |o| {
            el::scale_into(&o.rows(), 2.0, o.rows_out().view_mut())
        }),
        ("scale_shift", |o| {
            el::scale_shift_into(&o.rows(), 2.0, 3.0, o.rows_out().view_mut())
        }),
        ("divide", |o| {
            el::divide_into(&o.rows(), 2.0, o.rows_out().view_mut())
        }),
        ("clamp", |o| {
            el::clamp_into(&o.rows(), -1.0, 1.0, o.rows_out().view_mut())
        }),
        ("gate_residual", |o| {
            let (x, gate, residual) = (o.tokens(), o.rows(), o.tokens());
            el::gate_residual_into(&x, &gate, &residual, o.output(&[o.n, 2, 4]).view_mut())
        }),
        ("sums", |o| {
            let mut sums = RunningSums::zeros(2, o.device()).unwrap();
            sums.add_distance(0, &o.tokens(), &o.tokens(), 0, 1)
        }),
        ("sums", |o| {
            let mut sums = RunningSums::zeros(2 * o.n, o.device()).unwrap();
            sums.add_moments(0, &o.rows())
        }),
        ("sums", |o| {
            let mut sums = RunningSums::zeros(o.n, o.device()).unwrap();
            sums.add_not_finite(0, &o.rows())
        }),
        ("sums", |o| {
            let mut sums = RunningSums::zeros(o.n, o.device()).unwrap();
            sums.add(0, &RunningSums::zeros(o.n, o.device()).unwrap())
        }),
    ]
}

fn picture_kernels() -> Vec<(&'static str, Kernel)> {
    vec![
        ("group_norm", |o| {
            let (x, weight, bias) = (o.tensor(&[o.n, 2, 2, 4]), o.vector(), o.vector());
            let mut out = o.output(&[o.n, 2, 2, 4]);
            gn::group_norm_into(&x, 2, &weight, &bias, 1e-6, true, out.view_mut())
        }),
        ("group_norm", |o| {
            let (x, y) = (o.tensor(&[o.n, 2, 2, 4]), o.tensor(&[o.n, 1, 2, 4]));
            let sums = gn::GroupSums::of(&o.tensor(&[o.n, 3, 2, 4]), 2).unwrap();
            let (weight, bias) = (o.vector(), o.vector());
            gn::group_norm_rows(&[x.view(), y.view()], &sums, &weight, &bias, 1e-6, true).map(drop)
        }),
        ("rgb8", |o| {
            let mut out = o.bytes(&[o.n, 2, 4, 3]);
            pixels::rgb8_into(&o.tensor(&[o.n, 3, 2, 4]), out.view_mut())
        }),
        ("upsample_nearest_2x", |o| {
            let mut out = o.output(&[o.n, 4, 6, 4]);
            up::upsample_nearest_2x_into(&o.tensor(&[o.n, 2, 3, 4]), out.view_mut())
        }),
        ("conv2d", |o| {
            let weight = o.tensor(&[5, 4, 1, 1]);
            let options = Conv2dOptions::default();
            let conv = Conv2d::pack(&weight, None, options, DType::F32, weight.device())?;
            let (x, residual) = (o.tensor(&[o.n, 2, 3, 4]), o.tensor(&[o.n, 2, 3, 5]));
            conv.forward_into(
                &x,
                Some(residual.view()),
                o.output(&[o.n, 2, 3, 5]).view_mut(),
            )
        }),
        ("conv2d", |o| {
            let weight = o.tensor(&[5, 4, 1, 1]);
            let options = Conv2dOptions::default();
            let conv = Conv2d::pack(&weight, None, options, DType::F32, weight.device())?;
            let mut out = o.output(&[o.n, 1, 3, 5]);
            conv.forward_rows_into(&o.tensor(&[o.n, 2, 3, 4]), None, 1..2, out.view_mut())
        }),
    ]
}

fn attention_kernels() -> Vec<(&'static str, Kernel)> {
    vec![
        ("attention", |o| {
            let (q, k, v) = (
                o.tensor(&[o.n, 2, 1, 4]),
                o.tensor(&[o.n, 3, 1, 4]),
                o.tensor(&[o.n, 3, 1, 4]),
            );
            let (seen, bias) = (o.of(&[o.n, 3], DType::U8), o.tensor(&[1, 1, 1, 3]));
            let mask = Mask::default()
                .with_key_mask(Some(seen.view()))
                .with_bias(Some(bias.view()));
            Flash
                .attend(&AttnInput::new(&q, &k, &v).with_mask(mask))
                .map(drop)
        }),
        ("attention", |o| {
            let (q, k) = (o.tensor(&[o.n, 2, 1, 4]), o.tensor(&[o.n, 3, 1, 4]));
            let (mut out, mut lse) = (o.output(&[o.n, 2, 1, 4]), o.output(&[o.n, 1, 2]));
            flash_into(&AttnInput::new(&q, &k, &k), out.view_mut(), lse.view_mut())
        }),
        ("attention", |o| {
            let (q, k) = (o.tensor(&[o.n, 2, 1, 4]), o.tensor(&[o.n, 3, 1, 4]));
            let (mut out, mut lse) = (o.output(&[o.n, 2, 1, 4]), o.output(&[o.n, 1, 2]));
            let input = AttnInput::new(&q, &k, &k);
            flash_accumulate_into(&input, out.view_mut(), lse.view_mut())
        }),
        ("merge", |o| {
            let (mut out, mut lse) = (o.output(&[o.n, 2, 1, 4]), o.output(&[o.n, 1, 2]));
            me::merge_in_place(out.view_mut(), lse.view_mut(), &o.attention())
        }),
        ("merge", |o| {
            let (a, b) = (o.attention(), o.attention());
            let (mut out, mut lse) = (o.output(&[o.n, 2, 1, 4]), o.output(&[o.n, 1, 2]));
            me::merge_into(&a, &b, out.view_mut(), lse.view_mut())
        }),
        ("rms_norm_rope", |o| {
            let (x, weight) = (o.tensor(&[o.n, 2, 1, 4]), o.vector());
            let (cos, sin) = (o.tensor(&[2, 4]), o.tensor(&[2, 4]));
            let rope = Some((cos.view(), sin.view()));
            let mut out = o.output(&[o.n, 2, 1, 4]);
            rope::rms_norm_rope_into(&x, Some(weight.view()), 1e-6, rope, out.view_mut())
        }),
        ("layer_norm_rope", |o| {
            let (x, weight, bias) = (o.tensor(&[o.n, 2, 1, 4]), o.vector(), o.vector());
            let (cos, sin) = (o.tensor(&[2, 4]), o.tensor(&[2, 4]));
            let rope = Some((cos.view(), sin.view()));
            let mut out = o.output(&[o.n, 2, 1, 4]);
            rope::layer_norm_rope_into(&x, weight.view(), bias.view(), 1e-6, rope, out.view_mut())
        }),
        ("qk_norm_rope", |o| {
            let qkv = o.tensor(&[o.n, 2, 3, 1, 4]);
            let (rms, weight, bias) = (o.vector(), o.vector(), o.vector());
            let (cos, sin) = (o.tensor(&[2, 4]), o.tensor(&[2, 4]));
            let options = QkNormRope {
                norm_q: Some(HeadNorm::Rms(rms.view())),
                norm_k: Some(HeadNorm::Layer {
                    weight: weight.view(),
                    bias: bias.view(),
                }),
                eps: 1e-6,
                rope: Some((cos.view(), sin.view())),
            };
            let [mut q, mut k, mut v] = [(); 3].map(|()| o.output(&[o.n, 2, 1, 4]));
            rope::qk_norm_rope_into(&qkv, &options, q.view_mut(), k.view_mut(), v.view_mut())
        }),
    ]
}

/// Calls that the table need not have: they take one operand, or end in a call that it has.
const LEFT_OUT: [&str; 3] = ["layout::cast(", "layout::contiguous(", "rope::rope_table("];

/// How the table writes a call of a folder, up to its name.
fn written(folder: &str) -> &str {
    match folder {
        "activation" => "act::",
        "attention" => "",
        "conv2d" => "conv.",
        "elementwise" => "el::",
        "embedding" => "em::",
        "group_norm" => "gn::",
        "layout" => "layout::",
        "linear" => "linear.",
        "merge" => "me::",
        "norm" => "norm::",
        "pixels" => "pixels::",
        "rope" => "rope::",
        "softmax" => "so::",
        "sums" => "sums.",
        "upsample" => "up::",
        other => panic!("{other}: say how the table writes its calls"),
    }
}

/// Public calls of a kernel's file: functions, and methods that add or write into an output.
fn public_calls(file: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let named = |line: &str| {
        let name = line.trim_start().strip_prefix("pub fn ")?;
        let name = name
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()?;
        let writes = name == "add" || name.starts_with("add_") || name.ends_with("_into");
        (line.starts_with("pub") || writes).then(|| name.to_owned())
    };
    text.lines().filter_map(named).collect()
}

#[test]
fn the_table_has_every_kernel() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // The table ends where the list of calls that it need not have begins.
    let table = include_str!("dispatch_tests.rs");
    let table = table.split("const LEFT_OUT").next().unwrap();
    let mut found = 0;
    for folder in std::fs::read_dir(source).unwrap().flatten() {
        let files = ["mod.rs", "scalars.rs", "rows.rs"].map(|file| folder.path().join(file));
        let files = files.iter().filter(|file| file.exists());
        let calls: Vec<String> = files.flat_map(|file| public_calls(file)).collect();
        let folder = folder.file_name().into_string().unwrap();
        for call in &calls {
            let there = |call: &str| table.contains(&format!("{}{call}(", written(&folder)));
            let left_out = LEFT_OUT.contains(&&*format!("{folder}::{call}("));
            let into = format!("{call}_into");
            assert!(
                there(call) || calls.contains(&into) && there(&into) || left_out,
                "{folder}::{call}: give it operands of two devices"
            );
        }
        found += calls.len();
    }
    assert!(found > 30, "{found} calls are found");
}

#[test]
fn operands_of_two_devices_are_an_error_that_names_both() {
    let devices = test_devices();
    let [device, .., other] = &devices[..] else {
        // A processor with one tier has one device.
        return;
    };
    for (name, kernel) in kernels() {
        for n in [2, 0] {
            let operands = |odd: usize| Operands {
                device,
                other,
                odd,
                made: Cell::new(0),
                n,
            };
            let alike = operands(usize::MAX);
            kernel(&alike).unwrap_or_else(|e| panic!("{name}: {e}"));
            let count = alike.made.get();
            assert!(count >= 2, "{name} was given {count} operands");
            for odd in 0..count {
                let case = format!("first dim {n}, operand {odd}");
                assert_two_devices(name, [device, other], kernel(&operands(odd)), &case);
            }
        }
    }
}
