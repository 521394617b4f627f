//! Groups that only some calls need. They are split once and kept for later calls.

use std::sync::PoisonError;

use xdit_comm::Group;

use super::RankContext;
use crate::error::Result;

impl RankContext {
    /// Returns the ranks that decide together which steps run whole: those of the first `drawing` replicas, the only ones that
    /// draw. No image then depends on the number of replicas. `None` for a rank that works alone.
    ///
    /// # Collective
    /// Every rank of the world calls it with the same number.
    pub(crate) fn deciders(&self, drawing: usize) -> Result<Option<Group>> {
        let Some(ranks) = &self.ranks else {
            return Ok(None);
        };
        let lock = || {
            ranks
                .deciders
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = lock().get(&drawing).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let world = ranks.mesh.world();
        let draws = self.replica() < drawing;
        let number = ranks.degrees.in_usual_order(world.rank());
        let group = world.split(usize::from(draws), number)?;
        lock().insert(drawing, group.clone());
        Ok(Some(group))
    }

    /// Returns the stages of this rank's rows and the index of the one where the model ends, for messages beside those of the
    /// pipeline. `None` for one stage.
    ///
    /// # Collective
    /// Every stage of these rows calls it.
    pub(crate) fn beside_pipe(&self) -> Result<Option<(Group, usize)>> {
        let Some(ranks) = self.ranks.as_ref().filter(|it| it.pipe.world_size() > 1) else {
            return Ok(None);
        };
        let pipe = &ranks.pipe;
        let group = match ranks.beside_pipe.get() {
            Some(group) => group.clone(),
            None => {
                let group = pipe.split(0, pipe.rank())?;
                ranks.beside_pipe.get_or_init(|| group).clone()
            }
        };
        Ok(Some((group, ranks.placement.end(pipe.world_size()))))
    }
}
