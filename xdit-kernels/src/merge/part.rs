use crate::{Result, Tensor, View, ViewMut, attention::AttnOut};

/// Attention over some keys, as kernels read it.
#[derive(Clone, Copy)]
pub(super) struct MergedPart<'a> {
    /// [b, l, h, d], whose last stride is 1.
    pub(super) out: View<'a>,
    /// [b, h, l] f32.
    pub(super) lse: View<'a>,
}

impl<'a> MergedPart<'a> {
    pub(super) fn of(whole: &'a AttnOut) -> Self {
        Self {
            out: whole.out.view(),
            lse: whole.lse.view(),
        }
    }

    /// What lies in the outputs of a merge in place.
    ///
    /// # Safety
    /// Both are initialised, and the kernel reads each element before it writes it.
    pub(super) unsafe fn in_place<'o: 'a, 'l: 'a>(
        out: &mut ViewMut<'o>,
        lse: &mut ViewMut<'l>,
    ) -> Self {
        // SAFETY: the caller's promise.
        let (out, lse) = unsafe { (out.as_input(), lse.as_input()) };
        Self { out, lse }
    }
}

/// Itself, or copies if others may change the elements.
pub(super) fn steady(part: &AttnOut) -> Result<AttnOut> {
    Ok(AttnOut {
        out: Tensor::steady(&part.out)?,
        lse: Tensor::steady(&part.lse)?,
    })
}
