//! Packing of latents: 2×2 pixels of every channel are one token (diffusers `FluxPipeline._pack_latents`).
//!
//! Shapes: b images, c latent channels, h and w latent pixels; a token holds (c, dy, dx), row-major.

use xdit_kernels::{Tensor, View};

use crate::error::Result;

/// `[b, c, h, w]` to tokens `[b, h/2 · w/2, 4c]`.
pub(crate) fn pack(latents_bchw: &Tensor) -> Result<Tensor> {
    let &[b, c, h, w] = dims(latents_bchw)?;
    let view = latents_bchw.view().reshape([b, c, h / 2, 2, w / 2, 2])?;
    let tokens = view.permute(&[0, 2, 4, 1, 3, 5])?.to_tensor()?;
    Ok(tokens.reshape([b, h / 2 * (w / 2), 4 * c])?)
}

/// Tokens `[b, h/2 · w/2, 4c]` to images with channels last, `[b, h, w, c]`.
pub(crate) fn unpack_nhwc(tokens_blc: View<'_>, [h, w]: [usize; 2]) -> Result<Tensor> {
    let (b, c) = (tokens_blc.dim(0), tokens_blc.dim(2) / 4);
    let view = tokens_blc.reshape([b, h / 2, w / 2, c, 2, 2])?;
    let pixels = view.permute(&[0, 1, 4, 2, 5, 3])?.to_tensor()?;
    Ok(pixels.reshape([b, h, w, c])?)
}

fn dims(latents_bchw: &Tensor) -> Result<&[usize; 4]> {
    Ok(latents_bchw
        .shape()
        .try_into()
        .map_err(|_| xdit_kernels::Error::shape("pack latents", "[b, c, h, w]", latents_bchw))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    #[test]
    fn unpacking_undoes_packing() {
        let values: Vec<f32> = (0..2 * 3 * 4 * 6).map(|v| v as f32).collect();
        let latents = Tensor::from_slice(&values, [2, 3, 4, 6], &Device::cpu()).unwrap();
        let tokens = pack(&latents).unwrap();
        assert_eq!(tokens.shape(), [2, 6, 12]);
        // Token (0, 0) of channel 0: pixels (0,0) (0,1) (1,0) (1,1).
        assert_eq!(
            tokens.to_vec_blocking::<f32>().unwrap()[..4],
            [0., 1., 6., 7.]
        );
        let pixels = unpack_nhwc(tokens.view(), [4, 6]).unwrap();
        let back = pixels
            .view()
            .permute(&[0, 3, 1, 2])
            .unwrap()
            .to_tensor()
            .unwrap();
        assert_eq!(back.to_vec_blocking::<f32>().unwrap(), values);
    }
}
