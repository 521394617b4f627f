//! Images as pixels.

use xdit_kernels::{Tensor, pixels::rgb8, reserved};

use crate::error::Result;

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
    /// `[images, 3, height, width]`.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) for another shape, or a dtype that is not a float.
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
        let pixels = rgb8(planes_bchw)?;
        let &[images, height, width, _] = pixels.shape() else {
            unreachable!("pixels have four dims")
        };
        let bytes = pixels.to_vec_blocking::<u8>()?;
        let of_one = 3 * height * width;
        (0..images)
            .map(|i| {
                let mut rgb = reserved("pixels", of_one)?;
                rgb.extend_from_slice(&bytes[i * of_one..(i + 1) * of_one]);
                Ok(Self { width, height, rgb })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    #[test]
    fn planes_become_pixels() {
        let values: Vec<f32> = (0..12).map(|v| v as f32 / 255.0).collect();
        let planes = Tensor::from_slice(&values, [1, 3, 2, 2], &Device::cpu()).unwrap();
        let images = Image::from_planes(&planes).unwrap();
        assert_eq!(images[0].rgb, [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert!(Image::from_planes(&planes.reshape([3, 1, 2, 2]).unwrap()).is_err());
    }
}
