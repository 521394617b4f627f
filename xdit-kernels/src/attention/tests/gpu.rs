//! Attention on a GPU, or on the virtual one, against the f64 reference. Where there is none, this test fails: it is run by name
//! (`cargo test -p xdit-kernels --features cuda attention_on_a_gpu -- --ignored`). Kernels themselves are tested in
//! `tests/gpu-kernels`; here it is what they are given.

use super::{
    sum::{accumulated, parts},
    *,
};

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        // Each kernel on tensor units and those of fma.cu, by the head dim; views of one joint tensor.
        for d in [32, 64, 80, 88, 128, 20, 140] {
            cases.push(Case {
                b: 2,
                h_kv: 2,
                lq: 66,
                lk: 66,
                d,
                dtype,
                joint: true,
                ..PLAIN
            });
        }
        // More tiles of queries and keys, heads that share keys.
        cases.push(Case {
            h_kv: 2,
            group: 2,
            lq: 150,
            lk: 600,
            d: 64,
            dtype,
            ..PLAIN
        });
        let masked = Case {
            b: 2,
            h_kv: 2,
            group: 2,
            lq: 70,
            lk: 67,
            d: 40,
            dtype,
            ..PLAIN
        };
        cases.extend([
            Case {
                causal: true,
                ..masked.clone()
            },
            Case {
                key_mask: true,
                ..masked.clone()
            },
            Case {
                bias: Some([true, false, false]),
                ..masked.clone()
            },
            Case {
                bias: Some([false, true, true]),
                key_mask: true,
                ..masked.clone()
            },
            Case {
                scale: Some(-0.25),
                ..masked.clone()
            },
            Case {
                lk: 0,
                ..masked.clone()
            },
            Case { lq: 0, ..masked },
        ]);
    }
    cases
}

/// Calls `check` with each case, with its input on the GPU, and with the f64 reference.
fn each(check: impl Fn(&Case, &AttnInput<'_>, &Oracle, &Device)) {
    let gpu = crate::testing::gpu();
    let there = |x: &Tensor| x.to_device(&gpu).unwrap();
    for case in cases() {
        let data = case.data(&Device::cpu());
        let want = oracle(&case, &data);
        let moved = Data {
            q: there(&data.q),
            k: there(&data.k),
            v: there(&data.v),
            key_mask: data.key_mask.as_ref().map(there),
            bias: data.bias.as_ref().map(there),
        };
        let mut input = case.input(&moved);
        let joint = case.joint.then(|| there(&case.joined(&data)));
        if let Some(joint) = &joint {
            [input.q, input.k, input.v] =
                [0, 1, 2].map(|part| joint.view().select(2, part).unwrap());
        }
        check(&case, &input, &want, &gpu);
    }
}

fn back(of: &AttnOut) -> AttnOut {
    let back = |x: &Tensor| x.to_device(&Device::cpu()).unwrap();
    AttnOut {
        out: back(&of.out),
        lse: back(&of.lse),
    }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_on_a_gpu() {
    each(|case, input, want, gpu| {
        let got = Flash.attend(input).unwrap();
        // Weights of bf16, as where the processor multiplies pairs.
        compare(case, &back(&got), want, true, &gpu.to_string());
    });
}

/// The kernel adds the second part of the keys, and those after it, to what the first has written.
#[test]
#[ignore = "needs a GPU"]
fn attention_of_parts_on_a_gpu() {
    each(|case, input, want, gpu| {
        if case.causal {
            return; // Every part would begin with the first key of a query.
        }
        let reads = gpu.host_reads();
        let cuts = [0, case.lk / 3, case.lk / 3, case.lk];
        let sum = accumulated(&mut Flash, &parts(input, &cuts));
        assert_eq!(gpu.host_reads(), reads);
        assert_eq!(sum.out.dtype(), DType::F32);
        let out = sum.out.to_dtype(case.dtype).unwrap();
        let got = back(&AttnOut { out, lse: sum.lse });
        compare(case, &got, want, true, &format!("{gpu}, in parts"));
    });
}
