//! Images as pixels.

use xdit_kernels::{Tensor, reserved};

use crate::error::{Error, Result};

/// An 8-bit RGB image. Rows start at the top.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// The number of pixels in a row.
    pub width: usize,
    /// The number of rows.
    pub height: usize,
    /// `height × width × 3` values.
    pub rgb: Vec<u8>,
}

impl Image {
    /// Converts a batch of planes with values in [0, 1] to images, rounded to 8 bits as in diffusers (`image_processor.py`,
    /// `numpy_to_pil`: times 255, half to even).
    ///
    /// # Shapes
    /// `[images, 3, height, width]`, f32.
    ///
    /// # Errors
    /// [`Error::Kernel`] for another shape or dtype.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{Device, Tensor};
    /// use xdit_models::Image;
    /// let planes = Tensor::from_slice(&[0f32, 0.5, 1.0], [1, 3, 1, 1], &Device::cpu())?;
    /// assert_eq!(Image::from_planes(&planes)?[0].rgb, [0, 128, 255]);
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn from_planes(planes_bchw: &Tensor) -> Result<Vec<Self>> {
        let wrong = || {
            Error::Kernel(xdit_kernels::Error::shape(
                "image",
                "f32 planes [images, 3, height, width]",
                planes_bchw,
            ))
        };
        let &[images, 3, height, width] = planes_bchw.shape() else {
            return Err(wrong());
        };
        let values = planes_bchw.host_slice_blocking::<f32>()?;
        let plane = height * width;
        (0..images)
            .map(|i| {
                let image = &values[i * 3 * plane..(i + 1) * 3 * plane];
                let (red, rest) = image.split_at(plane);
                let (green, blue) = rest.split_at(plane);
                let mut rgb = reserved("pixels", 3 * plane)?;
                let pixels = red.iter().zip(green).zip(blue);
                rgb.extend(pixels.flat_map(|((r, g), b)| [level(*r), level(*g), level(*b)]));
                Ok(Self { width, height, rgb })
            })
            .collect()
    }
}

/// `value` in [0, 1] as one of 256 levels.
fn level(value: f32) -> u8 {
    (value * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    #[test]
    fn halves_round_to_even() {
        // 0.5/255 and 1.5/255 times 255 are exactly 0.5 and 1.5 in f32.
        assert_eq!(level(0.5 / 255.0), 0);
        assert_eq!(level(1.5 / 255.0), 2);
        assert_eq!((level(0.0), level(1.0)), (0, 255));
    }

    #[test]
    fn planes_become_pixels() {
        let values: Vec<f32> = (0..12).map(|v| v as f32 / 255.0).collect();
        let planes = Tensor::from_slice(&values, [1, 3, 2, 2], &Device::cpu()).unwrap();
        let images = Image::from_planes(&planes).unwrap();
        assert_eq!(images[0].rgb, [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert!(Image::from_planes(&planes.reshape([3, 1, 2, 2]).unwrap()).is_err());
    }
}
