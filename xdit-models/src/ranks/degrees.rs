//! The number of ranks on each axis.

use std::fmt;

use xdit_comm::{Axis, MeshShape};
use xdit_pipefusion::Placement;

use super::axes;
use super::mesh_order::MeshOrder;
use crate::error::{Error, Result};
use crate::quote::counted;

/// The number of ranks on each axis, and the order of the axes. The product of all is the size of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Degrees {
    /// Number of replicas.
    pub data: usize,
    /// Number of ranks that divide the branches of guidance, 1 or 2.
    pub cfg: usize,
    /// Number of pipeline stages.
    pub pipe: usize,
    /// Ring degree.
    pub ring: usize,
    /// Ulysses degree.
    pub ulysses: usize,
    /// The order of the axes: which ranks are neighbours.
    pub order: MeshOrder,
}

impl Default for Degrees {
    fn default() -> Self {
        Self {
            data: 1,
            cfg: 1,
            pipe: 1,
            ring: 1,
            ulysses: 1,
            order: MeshOrder::default(),
        }
    }
}

impl Degrees {
    /// Returns the mesh of these degrees.
    pub fn shape(&self) -> MeshShape {
        let sides = self.order.axes().map(|axis| (axis, self.of(axis)));
        MeshShape::new(sides).at_most(axes::CFG, 2)
    }

    /// Returns the degree of one axis, or 1 for an axis that is not in [`axes::ALL`].
    pub fn of(&self, axis: Axis) -> usize {
        let degrees = [self.data, self.cfg, self.pipe, self.ring, self.ulysses];
        let index = axes::ALL.iter().position(|known| *known == axis);
        index.map_or(1, |index| degrees[index])
    }

    /// Returns the coordinate of a rank on one axis, or 0 on an axis that is not in [`axes::ALL`].
    ///
    /// # Panics
    /// If a degree is 0.
    pub fn coord(&self, rank: usize, axis: Axis) -> usize {
        self.shape().coord(rank, axis).unwrap_or(0)
    }

    /// Returns the number of ranks of a replica.
    pub(crate) fn ranks_of_replica(&self) -> usize {
        let ranks = [self.cfg, self.pipe, self.ring, self.ulysses].into_iter();
        ranks.fold(1, usize::saturating_mul).max(1)
    }

    /// Returns the number that a rank has in the usual order of axes. What ranks compute, and in which order they add, follows
    /// this number, so that no order of axes changes a byte.
    pub(crate) fn in_usual_order(&self, rank: usize) -> usize {
        axes::ALL.into_iter().fold(0, |number, axis| {
            number * self.of(axis) + self.coord(rank, axis)
        })
    }

    /// Returns the place of a rank in its replica. The ranks of the stage where the model ends come first; the very first encodes
    /// prompts for the replica, gathers its images and reports for it.
    pub(crate) fn place_in_replica(&self, rank: usize, placement: Placement) -> usize {
        let rows = self.ring.saturating_mul(self.ulysses).max(1);
        let (branch, stage) = (self.coord(rank, axes::CFG), self.coord(rank, axes::PIPE));
        let from_end = (stage + self.pipe - placement.end(self.pipe)) % self.pipe.max(1);
        (branch * self.pipe + from_end) * rows + self.in_usual_order(rank) % rows
    }

    /// Returns the number of ranks, or `None` on overflow.
    pub fn product(&self) -> Option<usize> {
        self.shape().product()
    }

    /// Returns all degrees for `ranks` ranks in the same order of axes, those first that change the least
    /// ([`MeshShape::nearest`]). Among equals, the order of axes decides nothing.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::Degrees;
    /// let degrees = Degrees { ring: 2, ulysses: 2, ..Default::default() };
    /// assert_eq!(degrees.nearest(3)[0], Degrees { ulysses: 3, ..Default::default() });
    /// assert_eq!(degrees.nearest(2)[0], Degrees { ulysses: 2, ..Default::default() });
    /// ```
    pub fn nearest(&self, ranks: usize) -> Vec<Self> {
        let degrees = |shape: MeshShape| {
            let of = |axis| shape.degree(axis).unwrap_or(1);
            Self {
                data: of(axes::DATA),
                cfg: of(axes::CFG),
                pipe: of(axes::PIPE),
                ring: of(axes::RING),
                ulysses: of(axes::ULYSSES),
                order: self.order,
            }
        };
        let usual = Self {
            order: MeshOrder::USUAL,
            ..*self
        };
        let nearest = usual.shape().nearest(ranks);
        nearest.into_iter().map(degrees).collect()
    }

    /// Returns the ranks in few words.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::Degrees;
    /// let degrees = Degrees { ring: 2, ulysses: 2, ..Default::default() };
    /// assert_eq!(degrees.in_words(), "4 ranks: ring 2 × ulysses 2");
    /// assert_eq!(Degrees::default().in_words(), "1 rank");
    /// ```
    #[must_use]
    pub fn in_words(&self) -> String {
        let factors: Vec<String> = (self.order.axes().into_iter())
            .filter(|axis| self.of(*axis) > 1)
            .map(|axis| format!("{axis} {}", self.of(axis)))
            .collect();
        let ranks = counted(self.product().unwrap_or(usize::MAX), "rank");
        match factors.is_empty() {
            true => ranks,
            false => format!("{ranks}: {}", factors.join(" × ")),
        }
    }

    /// Checks that the product of the degrees is `world_size`.
    ///
    /// # Errors
    /// [`Error::Comm`], which names every factor and the nearest valid plan.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::Degrees;
    /// let degrees = Degrees { ulysses: 3, ring: 2, ..Default::default() };
    /// let message = degrees.check(8).unwrap_err().to_string();
    /// assert!(message.contains("data 1 × cfg 1 × pipe 1 × ring 2 × ulysses 3 = 6"), "{message}");
    /// assert!(message.contains("nearest"), "{message}");
    /// ```
    pub fn check(&self, world_size: usize) -> Result<()> {
        self.shape().check(world_size).map_err(Error::Comm)
    }
}

impl fmt::Display for Degrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shape().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIXTEEN: Degrees = Degrees {
        data: 2,
        cfg: 2,
        pipe: 2,
        ring: 1,
        ulysses: 2,
        order: MeshOrder::USUAL,
    };

    #[test]
    fn rank_five_of_sixteen_is_where_xdit_puts_it() {
        // Groups of rank 5 as printed in xDiT's docstring.
        let degrees = SIXTEEN;
        let places = |rank| axes::ALL.map(|axis| degrees.coord(rank, axis));
        let members = |axis| -> Vec<usize> {
            let others = |rank| axes::ALL.map(|a| (a != axis).then(|| degrees.coord(rank, a)));
            (0..16).filter(|&r| others(r) == others(5)).collect()
        };
        assert_eq!(places(5), [0, 1, 0, 0, 1]);
        assert_eq!(members(axes::ULYSSES), [4, 5]);
        assert_eq!(members(axes::PIPE), [5, 7]);
        assert_eq!(members(axes::CFG), [1, 5]);
        assert_eq!(members(axes::DATA), [5, 13]);
        assert_eq!(members(axes::RING), [5]);
    }

    #[test]
    fn the_first_ranks_of_a_replica_are_those_where_the_model_ends() {
        let degrees = SIXTEEN;
        assert_eq!(degrees.ranks_of_replica(), 8);
        let places = |placement| {
            [0, 1, 2, 3, 4, 7, 10].map(|rank| degrees.place_in_replica(rank, placement))
        };
        assert_eq!(places(Placement::Linear), [2, 3, 0, 1, 6, 5, 0]);
        assert_eq!(places(Placement::Folded), [0, 1, 2, 3, 4, 7, 2]);
    }

    #[test]
    fn an_order_moves_ranks_and_not_their_work() {
        let order = "ulysses,pipe,ring,cfg,data".parse().unwrap();
        let moved = Degrees { order, ..SIXTEEN };
        assert_eq!(
            moved.to_string(),
            "ulysses 2 × pipe 2 × ring 1 × cfg 2 × data 2"
        );
        let mut numbers: Vec<usize> = (0..16).map(|rank| moved.in_usual_order(rank)).collect();
        // The axes from the innermost: data, cfg, pipe, ulysses.
        assert_eq!(numbers[..5], [0, 8, 4, 12, 2]);
        for (rank, number) in numbers.iter().enumerate() {
            for axis in axes::ALL {
                assert_eq!(moved.coord(rank, axis), SIXTEEN.coord(*number, axis));
            }
            for placement in [Placement::Linear, Placement::Folded] {
                assert_eq!(
                    moved.place_in_replica(rank, placement),
                    SIXTEEN.place_in_replica(*number, placement)
                );
            }
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..16));
        assert!((0..16).all(|rank| SIXTEEN.in_usual_order(rank) == rank));
    }

    #[test]
    fn guidance_has_two_branches_at_most() {
        let cfg = Degrees {
            cfg: 3,
            ..Default::default()
        };
        let message = cfg.check(3).unwrap_err().to_string();
        assert!(message.contains("cfg at most 2"), "{message}");
    }
}
