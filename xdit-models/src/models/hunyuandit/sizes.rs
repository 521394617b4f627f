//! The sizes of pictures that HunyuanDiT was trained on (diffusers `pipelines/hunyuandit/pipeline_hunyuandit.py`,
//! `map_to_standard_shapes`).

/// Ratios of width to height, and widths and heights for each ratio.
const STANDARD: [(f64, &[[usize; 2]]); 5] = [
    (1.0, &[[1024, 1024], [1280, 1280]]),
    (4.0 / 3.0, &[[1024, 768], [1152, 864], [1280, 960]]),
    (3.0 / 4.0, &[[768, 1024], [864, 1152], [960, 1280]]),
    (16.0 / 9.0, &[[1280, 768]]),
    (9.0 / 16.0, &[[768, 1280]]),
];

/// Returns the height and width in which an image of this size is drawn: the same if it is a size of the training, otherwise
/// the size with the nearest area among those with the nearest ratio. The first one wins if several are equally near.
pub(super) fn standard_size([height, width]: [usize; 2]) -> [usize; 2] {
    let mut all = STANDARD.iter().flat_map(|(_, sizes)| sizes.iter());
    // The list contains the rotated form of each size, so the order of the sides does not matter.
    if all.any(|size| *size == [width, height]) {
        return [height, width];
    }
    let ratio = width as f64 / height as f64;
    let nearest = STANDARD
        .iter()
        .min_by(|(a, _), (b, _)| (a - ratio).abs().total_cmp(&(b - ratio).abs()));
    let sizes = nearest.map_or(STANDARD[0].1, |(_, sizes)| sizes);
    let area = |size: &&[usize; 2]| (size[0] * size[1]).abs_diff(width * height);
    let [width, height] = sizes.iter().min_by_key(area).copied().unwrap_or([1024; 2]);
    [height, width]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_list_stay() {
        for size in STANDARD.iter().flat_map(|(_, sizes)| sizes.iter()) {
            assert_eq!(standard_size(*size), *size);
        }
    }

    #[test]
    fn others_become_the_nearest() {
        for (asked, drawn) in [
            ([512, 512], [1024, 1024]),
            ([1152, 1152], [1024, 1024]),
            ([1200, 1200], [1280, 1280]),
            ([720, 1280], [768, 1280]),
            ([1920, 1088], [1280, 768]),
            ([900, 1200], [864, 1152]),
            ([16, 2048], [768, 1280]),
        ] {
            assert_eq!(standard_size(asked), drawn, "{asked:?}");
        }
    }
}
