//! Latents as tokens. A token is a patch of p×p pixels, with the channels of a pixel next to each other, as in the output of
//! the transformer's last layer (diffusers `SD3Transformer2DModel.forward`, "unpatchify"; HunyuanDiT has the same layout).
//!
//! Shapes: b images, c latent channels, h and w latent pixels, p pixels along a patch; a token holds (dy, dx, c), row-major.

use xdit_kernels::{Tensor, View};

use crate::error::Result;

/// `[b, c, h, w]` to tokens `[b, h/p · w/p, p·p·c]`.
pub(crate) fn pack(latents_bchw: &Tensor, p: usize) -> Result<Tensor> {
    let &[b, c, h, w] = latents_bchw.shape() else {
        return Err(
            xdit_kernels::Error::shape("pack latents", "[b, c, h, w]", latents_bchw).into(),
        );
    };
    let view = latents_bchw
        .view()
        .reshape([b, c, h / p, p, w / p, p])?
        .permute(&[0, 2, 4, 3, 5, 1])?;
    Ok(view.to_tensor()?.reshape([b, h / p * (w / p), p * p * c])?)
}

/// Tokens `[b, h/p · w/p, p·p·c]` to images with channels last, `[b, h, w, c]`.
pub(crate) fn unpack_nhwc(tokens_blc: View<'_>, [h, w]: [usize; 2], p: usize) -> Result<Tensor> {
    let (b, c) = (tokens_blc.dim(0), tokens_blc.dim(2) / (p * p));
    let view = tokens_blc
        .reshape([b, h / p, w / p, p, p, c])?
        .permute(&[0, 1, 3, 2, 4, 5])?;
    Ok(view.to_tensor()?.reshape([b, h, w, c])?)
}

/// Tokens `[b, h/p · w/p, p·p·c]` to images in the layout of diffusers, `[b, c, h, w]`. The inverse of [`pack`].
pub(crate) fn unpack(tokens_blc: View<'_>, size: [usize; 2], p: usize) -> Result<Tensor> {
    let pixels_bhwc = unpack_nhwc(tokens_blc, size, p)?;
    Ok(pixels_bhwc.view().permute(&[0, 3, 1, 2])?.to_tensor()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    #[test]
    fn unpacking_undoes_packing() {
        let values: Vec<f32> = (0..2 * 3 * 4 * 6).map(|v| v as f32).collect();
        let latents = Tensor::from_slice(&values, [2, 3, 4, 6], &Device::cpu()).unwrap();
        let tokens = pack(&latents, 2).unwrap();
        assert_eq!(tokens.shape(), [2, 6, 12]);
        // Token (0, 0): three channels 24 apart of pixels (0,0), (0,1), (1,0), (1,1).
        assert_eq!(
            tokens.to_vec_blocking::<f32>().unwrap()[..12],
            [0., 24., 48., 1., 25., 49., 6., 30., 54., 7., 31., 55.]
        );
        // The second token is two pixels to the right.
        assert_eq!(
            tokens.to_vec_blocking::<f32>().unwrap()[12..15],
            [2., 26., 50.]
        );
        let back = unpack(tokens.view(), [4, 6], 2).unwrap();
        assert_eq!(back.to_vec_blocking::<f32>().unwrap(), values);
        assert_eq!(back.shape(), [2, 3, 4, 6]);
        let pixels = unpack_nhwc(tokens.view(), [4, 6], 2).unwrap();
        assert_eq!(pixels.shape(), [2, 4, 6, 3]);
        assert_eq!(
            pixels.to_vec_blocking::<f32>().unwrap()[..6],
            [0., 24., 48., 1., 25., 49.]
        );
    }
}
