//! The choice between an end and other ranks.

/// What happens to a call on ranks that are threads when one of them is lost: it panicked, or missed its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnRankLoss {
    /// The call ends with [`Error::Rank`](crate::Error::Rank).
    #[default]
    Fail,
    /// The call continues after its last finished step on the nearest legal degrees for the ranks that are left
    /// ([`Pipeline::nearest_degrees`]), and warns the observer, which may see phases and steps again. Without patches the image is
    /// that of a call that lost no rank, as exactly as images of the two plans agree. With patches, the new ranks warm up again, so
    /// the image differs like images of two plans with patches. Degrees that would make an exact call inexact are not chosen.
    ///
    /// The ranks of a replica gather the latents in each step, and the process keeps them in the host's memory.
    ///
    /// [`Pipeline::nearest_degrees`]: crate::Pipeline::nearest_degrees
    Replan,
}
