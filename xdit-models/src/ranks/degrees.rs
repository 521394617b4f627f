//! The number of ranks on each axis.

use std::fmt;

use xdit_comm::{Axis, MeshShape};

use super::axes;
use crate::error::{Error, Result};

/// The number of ranks on each axis. The product of all is the size of the world. [`axes::ALL`] defines the order of the axes.
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
}

impl Default for Degrees {
    fn default() -> Self {
        Self {
            data: 1,
            cfg: 1,
            pipe: 1,
            ring: 1,
            ulysses: 1,
        }
    }
}

impl Degrees {
    /// Returns the mesh of these degrees.
    pub fn shape(&self) -> MeshShape {
        let degrees = [self.data, self.cfg, self.pipe, self.ring, self.ulysses];
        MeshShape::new(axes::ALL.into_iter().zip(degrees)).at_most(axes::CFG, 2)
    }

    /// Returns the degree of one axis, or 1 for an axis that is not in [`axes::ALL`].
    pub fn of(&self, axis: Axis) -> usize {
        self.shape().degree(axis).unwrap_or(1)
    }

    /// Returns the coordinate of a rank on one axis, or 0 on an axis that is not in [`axes::ALL`].
    ///
    /// # Panics
    /// If a degree is 0.
    pub fn coord(&self, rank: usize, axis: Axis) -> usize {
        self.shape().coord(rank, axis).unwrap_or(0)
    }

    /// Returns the number of ranks, or `None` on overflow.
    pub fn product(&self) -> Option<usize> {
        self.shape().product()
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

    #[test]
    fn rank_five_of_sixteen_is_where_xdit_puts_it() {
        // data 2 × cfg 2 × pipe 2 × ulysses 2: groups of rank 5 as printed in xDiT's docstring.
        let degrees = Degrees {
            data: 2,
            cfg: 2,
            pipe: 2,
            ulysses: 2,
            ..Default::default()
        };
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
    fn guidance_has_two_branches_at_most() {
        let cfg = Degrees {
            cfg: 3,
            ..Default::default()
        };
        let message = cfg.check(3).unwrap_err().to_string();
        assert!(message.contains("cfg at most 2"), "{message}");
    }
}
