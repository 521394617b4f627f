//! Norms of queries and keys with rotary embedding, into a joint tensor or a new one.

use crate::support::{FLOATS, Pair, tensor};
use xdit_kernels::{
    DType, Device, Result, Tensor, TensorMut,
    rope::{HeadNorm, QkNormRope, layer_norm_rope, qk_norm_rope_into, rms_norm_rope, rope_table},
};

#[test]
#[ignore = "needs a GPU"]
fn heads_and_rotation() {
    let pair = Pair::new();
    for dtype in FLOATS {
        for d in [64, 10, 264] {
            let table = |device: &Device| rope_table(&[0.5, 1.0, 7.0], d, 1e4, device);
            let joint = |device: &Device, index: usize| -> Result<Tensor> {
                let qkv = tensor(&[2, 3, 3, 2, d], dtype, 1, device);
                let (weight, bias) = (
                    tensor(&[d], DType::F32, 2, device),
                    tensor(&[d], dtype, 3, device),
                );
                let (cos, sin) = table(device)?;
                let options = QkNormRope {
                    norm_q: Some(HeadNorm::Rms(weight.view())),
                    norm_k: Some(HeadNorm::Layer {
                        weight: weight.view(),
                        bias: bias.view(),
                    }),
                    eps: 1e-6,
                    rope: Some((cos.view(), sin.view())),
                };
                // Image rows behind text rows.
                let new = || TensorMut::zeros([2, 5, 2, d], dtype, device);
                let mut outs = [new()?, new()?, new()?];
                let [q, k, v] = outs.each_mut().map(|out| out.view_mut().narrow(1, 2, 3));
                qk_norm_rope_into(&qkv, &options, q?, k?, v?)?;
                let [q, k, v] = outs.map(TensorMut::freeze);
                Ok([q, k, v].into_iter().nth(index).unwrap())
            };
            for index in 0..3 {
                pair.same("qk_norm_rope", |device| joint(device, index));
            }
            let x = |device: &Device| tensor(&[2, 3, 2, d], dtype, 1, device);
            let one = |device: &Device| tensor(&[d], dtype, 2, device);
            pair.same("rms_norm_rope", |device| {
                let (cos, sin) = table(device)?;
                rms_norm_rope(
                    &x(device),
                    Some(one(device).view()),
                    1e-6,
                    Some((cos.view(), sin.view())),
                )
            });
            pair.same("layer_norm_rope", |device| {
                layer_norm_rope(
                    &x(device),
                    one(device).view(),
                    one(device).view(),
                    1e-6,
                    None,
                )
            });
        }
    }
}
