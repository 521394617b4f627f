//! Group norm over pictures, whole and in bands, and upsampling.

use crate::support::{FLOATS, Pair, Tolerance, sizes, tensor};
use xdit_kernels::{
    DType, Tensor, View,
    group_norm::{GroupSums, group_norm, group_norm_rows},
    upsample::upsample_nearest_2x,
};

fn assert_like_cpu(what: &str, got: &Tensor, want: &Tensor) {
    Tolerance::ROUNDING.assert(what, got, want);
}

/// Pictures and the number of groups.
const SMALL: [([usize; 4], usize); 3] =
    [([2, 5, 7, 64], 32), ([1, 9, 6, 9], 3), ([1, 40, 30, 8], 2)];

#[test]
#[ignore = "needs a GPU"]
fn pictures_are_those_of_the_processor() {
    let Pair { cpu, gpu } = Pair::new();
    for dtype in FLOATS {
        for (shape, groups) in sizes(&SMALL, &[([1, 129, 65, 128], 32)]) {
            let x = tensor(&shape, dtype, 1, &cpu);
            let weight = tensor(&[shape[3]], dtype, 2, &cpu);
            let bias = tensor(&[shape[3]], DType::F32, 3, &cpu);
            let want = group_norm(&x, groups, &weight, &bias, 1e-5, true).unwrap();
            let double = upsample_nearest_2x(&x).unwrap();
            let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.to_device(&gpu).unwrap());
            let got = group_norm(&x, groups, &weight, &bias, 1e-5, true).unwrap();
            assert_like_cpu("group_norm", &got, &want);
            assert_like_cpu("upsample", &upsample_nearest_2x(&x).unwrap(), &double);

            // Two bands, as two ranks hold them.
            let band = |from: usize, rows: usize| x.view().narrow(1, from, rows).unwrap();
            let parts: [View<'_>; 2] = [band(0, 2), band(2, shape[1] - 2)];
            let numbers = |part| GroupSums::of(part, groups).unwrap().to_vec_blocking();
            let sums = parts.map(|part: View<'_>| numbers(part).unwrap());
            let sums = GroupSums::total(groups, &sums, &gpu).unwrap();
            let got = group_norm_rows(&parts, &sums, &weight, &bias, 1e-5, true).unwrap();
            assert_like_cpu("group_norm", &got, &want);
        }
    }
}
