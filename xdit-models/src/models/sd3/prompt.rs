//! What an SD3 transformer reads of a prompt: the embeddings of two CLIP encoders and of T5 as one (diffusers
//! `StableDiffusion3Pipeline.encode_prompt`).
//!
//! Shapes: b prompts, l tokens, c channels.

use xdit_kernels::Tensor;

use super::Sd3Config;
use crate::error::Result;
use crate::text::ClipOutput;

/// The text inputs of the transformer for a batch of prompts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PromptEmbeds {
    /// `[b, CLIP tokens + T5 tokens, joint_attention_dim]`.
    pub prompt_embeds: Tensor,
    /// `[b, pooled_projection_dim]`.
    pub pooled: Tensor,
}

impl PromptEmbeds {
    /// The embeddings of both CLIP encoders side by side, filled up with zeros to T5's width, then T5's
    /// `[b, max_sequence_length, joint_attention_dim]`, or zeros where there is no such encoder.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) if CLIP's embeddings are wider than T5's, differ in the number of prompts or
    /// tokens, or have no projection.
    pub fn join(
        config: &Sd3Config,
        clip: [&ClipOutput; 2],
        t5: Option<&Tensor>,
        max_sequence_length: usize,
    ) -> Result<Self> {
        let width = config.joint_attention_dim;
        let [first, second] = clip.map(|output| &output.prompt_embeds);
        let (b, dtype) = (first.dim(0), first.dtype());
        let zeros = |l: usize, c: usize| Tensor::zeros([b, l, c], dtype, first.device());
        let filled = first.dim(2) + second.dim(2);
        let Some(rest) = width.checked_sub(filled) else {
            let expected = format!("CLIP embeddings of at most {width} channels");
            return Err(xdit_kernels::Error::shape("sd3 prompt", expected, filled).into());
        };
        let padding = zeros(first.dim(1), rest)?;
        let clip_blc = Tensor::cat(&[first.view(), second.view(), padding.view()], 2)?;
        let t5_blc = match t5 {
            Some(embeds) => embeds.to_dtype(dtype)?,
            None => zeros(max_sequence_length, width)?,
        };
        let pooled = clip.map(|output| {
            output.text_embeds.as_ref().ok_or_else(|| {
                xdit_kernels::Error::shape(
                    "sd3 prompt",
                    "CLIP with a text projection",
                    format_args!("one without"),
                )
            })
        });
        let [pooled, pooled_2] = pooled;
        Ok(Self {
            prompt_embeds: Tensor::cat(&[clip_blc.view(), t5_blc.view()], 1)?,
            pooled: Tensor::cat(&[pooled?.view(), pooled_2?.view()], 1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::ConfigFile;
    use xdit_kernels::Device;

    fn clip(values: [f32; 2], tokens: usize, projected: f32) -> ClipOutput {
        let tensor = |values: &[f32], shape: &[usize]| {
            Tensor::from_slice(values, shape, &Device::cpu()).unwrap()
        };
        let embeds: Vec<f32> = values.repeat(tokens);
        ClipOutput {
            prompt_embeds: tensor(&embeds, &[1, tokens, 2]),
            last_hidden_state: tensor(&embeds, &[1, tokens, 2]),
            pooled: tensor(&[9.0], &[1, 1]),
            text_embeds: Some(tensor(&[projected], &[1, 1])),
        }
    }

    fn config(width: usize) -> Sd3Config {
        let json = format!(r#"{{"joint_attention_dim": {width}}}"#);
        Sd3Config::read(&ConfigFile::parse("c", json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn clip_is_filled_up_and_t5_follows() {
        let (first, second) = (clip([1., 2.], 2, 5.), clip([3., 4.], 2, 6.));
        let t5 = Tensor::from_slice(&[7f32; 5], [1, 1, 5], &Device::cpu()).unwrap();
        let joined = PromptEmbeds::join(&config(5), [&first, &second], Some(&t5), 1).unwrap();
        assert_eq!(joined.prompt_embeds.shape(), [1, 3, 5]);
        assert_eq!(
            joined.prompt_embeds.to_vec_blocking::<f32>().unwrap(),
            [1., 2., 3., 4., 0., 1., 2., 3., 4., 0., 7., 7., 7., 7., 7.]
        );
        // Through the projections, not the pooled states themselves.
        assert_eq!(joined.pooled.to_vec_blocking::<f32>().unwrap(), [5., 6.]);

        // As wide as T5: nothing to fill up. Without T5: zeros.
        let joined = PromptEmbeds::join(&config(4), [&first, &second], None, 2).unwrap();
        let clip = [1., 2., 3., 4.].repeat(2);
        assert_eq!(
            joined.prompt_embeds.to_vec_blocking::<f32>().unwrap(),
            [clip, vec![0.; 8]].concat()
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (first, second) = (clip([1., 2.], 2, 5.), clip([3., 4.], 2, 6.));
        let wide = PromptEmbeds::join(&config(3), [&first, &second], None, 2);
        assert!(wide.unwrap_err().to_string().contains("at most 3 channels"));
        let unprojected = ClipOutput {
            text_embeds: None,
            ..second.clone()
        };
        let error = PromptEmbeds::join(&config(4), [&first, &unprojected], None, 2).unwrap_err();
        assert!(error.to_string().contains("text projection"), "{error}");
        let longer = clip([1., 2.], 3, 5.);
        assert!(PromptEmbeds::join(&config(4), [&first, &longer], None, 2).is_err());
    }
}
