use crate::{Part, PatchPlan};

/// The messages of one denoising step, between the ranks with the same coordinates in each stage, in a pipeline of several
/// stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTraffic {
    /// From each stage to the next: hidden states.
    pub forward: Traffic,
    /// From each stage to the previous one: hidden states on their way up a folded pipeline.
    pub upward: Traffic,
    /// From the last stage to the first: latents, except after the last step. None in a folded pipeline.
    pub back: Traffic,
    /// From all stages together: outputs of blocks that later blocks of a U-shaped model read.
    pub skips: Traffic,
}

/// Messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The number of messages.
    pub messages: usize,
    /// The bytes of all messages.
    pub bytes: usize,
}

impl StepTraffic {
    /// Computes the messages of a step with these `parts`, if nothing else is divided and the hidden states of a part are one
    /// tensor ([`Stage::carried`](crate::Stage::carried)). `text_tokens` are sent once per step, and the tokens of each patch
    /// once.
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

    /// Returns the same for a folded pipeline.
    #[must_use]
    pub fn folded(self) -> Self {
        Self {
            upward: self.forward,
            back: Traffic::default(),
            ..self
        }
    }

    /// Returns the same with `crossing` outputs of blocks that another stage reads. Each is as large as the hidden states.
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
