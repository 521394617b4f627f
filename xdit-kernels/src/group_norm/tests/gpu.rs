//! On a GPU, or on the virtual one, against the processor. Without one this test fails: it is run by name.

use crate::{
    DType, Device, View,
    group_norm::{GroupSums, group_norm, group_norm_rows},
    testing::{FLOATS, assert_like_cpu, gpu, tensor},
    upsample::upsample_nearest_2x,
};

#[test]
#[ignore = "needs a GPU"]
fn pictures_are_those_of_the_processor() {
    let (cpu, gpu) = (Device::cpu(), gpu());
    for dtype in FLOATS {
        for (shape, groups) in [([2, 5, 7, 64], 32), ([1, 9, 6, 9], 3), ([1, 40, 30, 8], 2)] {
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
