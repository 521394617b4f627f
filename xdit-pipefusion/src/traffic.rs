use crate::{Part, PatchPlan};

/// What one rank sends in one denoising step, stage by stage, in a pipeline of more than one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTraffic {
    /// From each stage to the next: hidden states.
    pub forward: Traffic,
    /// From the last stage to the first: latents, except after the last step.
    pub back: Traffic,
}

/// Messages and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub messages: usize,
    /// Of all of them.
    pub bytes: usize,
}

impl StepTraffic {
    /// What a step of these `parts` sends when nothing else is cut and the hidden states of a part go as one tensor
    /// ([`Stage::carried`](crate::Stage::carried)): `text_tokens` go once a step, each patch's tokens once.
    /// `hidden_bytes` and `latent_bytes` are those of one token, in the whole batch.
    ///
    /// # Examples
    /// ```
    /// use xdit_pipefusion::{PatchPlan, Schedule, StepTraffic};
    /// let patches = PatchPlan::new(64, 64, 4)?;
    /// let schedule = Schedule { steps: 28, warmup_steps: 1, patches: 4 };
    /// let step = StepTraffic::new(&schedule.parts(1), &patches, 512, 2 * 3072, 4 * 64);
    /// assert_eq!((step.forward.messages, step.forward.bytes), (4, (512 + 4096) * 2 * 3072));
    /// assert_eq!((step.back.messages, step.back.bytes), (4, 4096 * 4 * 64));
    /// # Ok::<(), xdit_pipefusion::Error>(())
    /// ```
    pub fn new(
        parts: &[Part],
        patches: &PatchPlan,
        text_tokens: usize,
        hidden_bytes: usize,
        latent_bytes: usize,
    ) -> Self {
        Self {
            forward: Traffic {
                messages: parts.len(),
                bytes: (text_tokens + patches.image_tokens()) * hidden_bytes,
            },
            back: Traffic {
                messages: patches.count(),
                bytes: patches.image_tokens() * latent_bytes,
            },
        }
    }
}
