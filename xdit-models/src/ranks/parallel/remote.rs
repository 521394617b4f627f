//! The caller's observer, called from a rank on another thread.
//!
//! The observer need not outlive the call, but the thread of a rank may. The observer therefore stays with the caller, and the
//! rank sends its calls to it.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use xdit_comm::threads::Caller;
use xdit_kernels::Tensor;

use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::observer::{Observer, Phase, PhaseEvent, StepEnd};

/// A call of the observer that a rank asks the caller to make.
pub(super) type ObserverCall = Box<dyn FnOnce(&mut dyn Observer) + Send>;

/// The wishes of an observer, and its token. It is asked for them once, before the ranks start.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    latents: bool,
    tensors: bool,
    pub(super) cancel: CancelToken,
    /// Whether the observer panicked.
    pub(super) broken: Arc<AtomicBool>,
}

impl Wishes {
    pub(super) fn of(observer: &dyn Observer) -> Self {
        Self {
            latents: observer.wants_latents(),
            tensors: observer.wants_tensors(),
            cancel: observer.cancel_token(),
            broken: Arc::default(),
        }
    }
}

/// An observer on the caller's thread. The rank waits for its answers. If no answer can come, the caller has returned and the
/// run is over.
#[derive(Debug)]
pub(super) struct Remote {
    caller: Caller<ObserverCall>,
    wishes: Wishes,
}

impl Remote {
    pub(super) fn new(caller: Caller<ObserverCall>, wishes: Wishes) -> Self {
        Self { caller, wishes }
    }

    /// Returns the answer of the observer, or `None` if the caller has returned. If the observer panics, this rank fails.
    fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut dyn Observer) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        self.caller.send(Box::new(move |observer| {
            let told = catch_unwind(AssertUnwindSafe(|| what(observer)));
            // The rank waits for the answer below.
            answer.send(told).ok();
        }));
        let told = answered.recv().ok()?;
        Some(told.unwrap_or_else(|panic| {
            self.wishes.broken.store(true, Ordering::Relaxed);
            resume_unwind(panic)
        }))
    }
}

impl Observer for Remote {
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        self.ask(move |observer| observer.phase(phase, event));
    }

    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        let &StepEnd {
            index,
            total,
            timestep,
            latents,
        } = step;
        let latents = latents.cloned();
        let answer = self.ask(move |observer| {
            observer.step_end(&StepEnd {
                index,
                total,
                timestep,
                latents: latents.as_ref(),
            })
        });
        answer.unwrap_or(ControlFlow::Break(()))
    }

    fn wants_latents(&self) -> bool {
        self.wishes.latents
    }

    fn wants_tensors(&self) -> bool {
        self.wishes.tensors
    }

    fn cancel_token(&self) -> CancelToken {
        self.wishes.cancel.clone()
    }

    fn tensor(&mut self, name: &str, make: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        if !self.wishes.tensors {
            return Ok(());
        }
        let (named, made) = (name.to_owned(), make()?);
        let answer = self.ask(move |observer| observer.tensor(&named, &|| Ok(made.clone())));
        // The error is never reported, so the step does not matter.
        answer.unwrap_or(Err(Error::Stopped { step: 0 }))
    }

    fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        let (name, ids) = (name.to_owned(), ids.to_vec());
        self.ask(move |observer| observer.ids(&name, &ids));
    }

    fn warning(&mut self, text: &str) {
        let text = text.to_owned();
        self.ask(move |observer| observer.warning(&text));
    }
}
