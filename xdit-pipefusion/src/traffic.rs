use crate::{Part, PatchPlan};

/// What goes over the links in one denoising step, between the ranks of one place in each stage, in a pipeline of more than one
/// stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTraffic {
    /// From each stage to the next: hidden states.
    pub forward: Traffic,
    /// From each stage to the one before: hidden states on their way up a folded pipeline.
    pub upward: Traffic,
    /// From the last stage to the first: latents, except after the last step. None in a folded pipeline.
    pub back: Traffic,
    /// From all stages together straight to those that read outputs of blocks again, in a U-shaped model.
    pub skips: Traffic,
}

/// Messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub messages: usize,
    /// Of all of them.
    pub bytes: usize,
}

impl StepTraffic {
    /// What a step of these `parts` sends when nothing else is cut and the hidden states of a part go as one tensor
    /// ([`Stage::carried`](crate::Stage::carried)): `text_tokens` go once a step, each patch's tokens once.
    /// `hidden_bytes` and `latent_bytes` are those of one token, in the whole batch. What cannot be counted is `usize::MAX`.
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
                bytes: (text_tokens.saturating_add(patches.image_tokens()))
                    .saturating_mul(hidden_bytes),
            },
            upward: Traffic::default(),
            back: Traffic {
                messages: patches.count(),
                bytes: patches.image_tokens().saturating_mul(latent_bytes),
            },
            skips: Traffic::default(),
        }
    }

    /// The same in a folded pipeline.
    #[must_use]
    pub fn folded(self) -> Self {
        Self {
            upward: self.forward,
            back: Traffic::default(),
            ..self
        }
    }

    /// The same where `crossing` outputs of blocks are read again on another stage: each is handed on like hidden states.
    #[must_use]
    pub fn with_skips(self, crossing: usize) -> Self {
        Self {
            skips: Traffic {
                messages: crossing * self.forward.messages,
                bytes: crossing * self.forward.bytes,
            },
            ..self
        }
    }
}
