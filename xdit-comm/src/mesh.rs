//! Ranks on named axes.

use crate::{Error, Group, Result};
use std::fmt;

/// An axis of the mesh. Ulysses neighbours are adjacent ranks, then ring, pipe, cfg, data (xDiT's order).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Axis {
    /// Replicas: prompts and images are shared out.
    Data,
    /// The branches of classifier-free guidance.
    Cfg,
    /// Pipeline stages.
    Pipe,
    /// Sequence parallelism by rotating keys and values.
    Ring,
    /// Sequence parallelism by exchanging heads for tokens.
    Ulysses,
}

impl Axis {
    /// Outermost first: the last varies fastest over ranks.
    pub const ALL: [Self; 5] = [Self::Data, Self::Cfg, Self::Pipe, Self::Ring, Self::Ulysses];

    /// Its name in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Cfg => "cfg",
            Self::Pipe => "pipe",
            Self::Ring => "ring",
            Self::Ulysses => "ulysses",
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many ranks each axis has; their product is the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Degrees {
    /// Replicas.
    pub data: usize,
    /// Guidance branches, 1 or 2.
    pub cfg: usize,
    /// Pipeline stages.
    pub pipe: usize,
    /// Ring.
    pub ring: usize,
    /// Ulysses.
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
    /// The degree of one axis.
    pub fn of(&self, axis: Axis) -> usize {
        match axis {
            Axis::Data => self.data,
            Axis::Cfg => self.cfg,
            Axis::Pipe => self.pipe,
            Axis::Ring => self.ring,
            Axis::Ulysses => self.ulysses,
        }
    }

    /// Where a rank stands on one axis.
    ///
    /// # Panics
    /// If a degree is 0.
    pub fn coord(&self, rank: usize, axis: Axis) -> usize {
        coord_and_color(self, rank, axis).0
    }

    fn with(mut self, axis: Axis, degree: usize) -> Self {
        match axis {
            Axis::Data => self.data = degree,
            Axis::Cfg => self.cfg = degree,
            Axis::Pipe => self.pipe = degree,
            Axis::Ring => self.ring = degree,
            Axis::Ulysses => self.ulysses = degree,
        }
        self
    }

    /// Number of ranks, or `None` if it does not fit.
    pub fn product(&self) -> Option<usize> {
        Axis::ALL
            .iter()
            .try_fold(1usize, |n, &a| n.checked_mul(self.of(a)))
    }

    /// Checks that the degrees make a world of this size.
    ///
    /// # Errors
    /// [`Error::Degrees`] naming every factor and the nearest plan that is legal.
    ///
    /// # Examples
    /// ```
    /// use xdit_comm::Degrees;
    /// let degrees = Degrees { ulysses: 3, ring: 2, ..Default::default() };
    /// let message = degrees.check(8).unwrap_err().to_string();
    /// assert!(message.contains("data 1 × cfg 1 × pipe 1 × ring 2 × ulysses 3 = 6"), "{message}");
    /// assert!(message.contains("nearest"), "{message}");
    /// ```
    pub fn check(&self, world_size: usize) -> Result<()> {
        let legal = self.cfg <= 2 && Axis::ALL.iter().all(|&a| self.of(a) >= 1);
        if legal && self.product() == Some(world_size) {
            return Ok(());
        }
        let product = self
            .product()
            .map_or("more than a machine can count".to_owned(), |n| {
                n.to_string()
            });
        let reason = if !legal {
            ": each degree is at least 1, and cfg at most 2".to_owned()
        } else {
            format!(", but there are {world_size} ranks")
        };
        let nearest = match self.nearest(world_size) {
            Some(plan) => format!("; the nearest plan for {world_size} ranks is {plan}"),
            None => String::new(),
        };
        Err(Error::Degrees(format!(
            "{self} = {product}{reason}{nearest}"
        )))
    }

    /// The legal degrees for `world_size` that change the least: the sum over axes of |log of the ratio|, the earlier of
    /// equals in mesh order.
    fn nearest(&self, world_size: usize) -> Option<Self> {
        fn factor(left: usize, axes: &[Axis], plan: Degrees, out: &mut Vec<Degrees>) {
            match axes {
                [] => {
                    if left == 1 {
                        out.push(plan)
                    }
                }
                [axis, rest @ ..] => {
                    for d in (1..=left)
                        .filter(|d| left.is_multiple_of(*d) && (*axis != Axis::Cfg || *d <= 2))
                    {
                        factor(left / d, rest, plan.with(*axis, d), out);
                    }
                }
            }
        }
        // Beyond this many ranks the search would take longer than the answer is worth.
        if world_size == 0 || world_size > 4096 {
            return None;
        }
        let mut plans = Vec::new();
        factor(world_size, &Axis::ALL, Self::default(), &mut plans);
        let distance = |plan: &Self| -> f64 {
            let ratio = |a: &Axis| (plan.of(*a) as f64 / self.of(*a).max(1) as f64).ln().abs();
            Axis::ALL.iter().map(ratio).sum()
        };
        plans
            .into_iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }
}

impl fmt::Display for Degrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, axis) in Axis::ALL.into_iter().enumerate() {
            let times = if i > 0 { " × " } else { "" };
            write!(f, "{times}{axis} {}", self.of(axis))?;
        }
        Ok(())
    }
}

/// The ranks of a world on named axes: `rank = ulysses + U·(ring + R·(pipe + P·(cfg + C·data)))`.
#[derive(Debug, Clone)]
pub struct DeviceMesh {
    world: Group,
    degrees: Degrees,
    groups: Vec<Group>,
}

impl DeviceMesh {
    /// The mesh over `world`.
    ///
    /// # Collective
    /// Every rank of the world calls it with the same degrees.
    ///
    /// # Errors
    /// [`Error::Degrees`] if they do not multiply to the world's size; errors of [`Group::split`].
    pub fn new(world: &Group, degrees: Degrees) -> Result<Self> {
        degrees.check(world.world_size())?;
        let groups = Axis::ALL
            .into_iter()
            .map(|axis| {
                let (coord, color) = coord_and_color(&degrees, world.rank(), axis);
                Ok(world.split(color, coord)?.named(axis))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            world: world.clone(),
            degrees,
            groups,
        })
    }

    /// All ranks.
    pub fn world(&self) -> &Group {
        &self.world
    }

    /// The degrees.
    pub fn degrees(&self) -> Degrees {
        self.degrees
    }

    /// The ranks that differ from me on this axis alone; a group of one where the degree is 1.
    pub fn group(&self, axis: Axis) -> &Group {
        let index = Axis::ALL
            .iter()
            .position(|a| *a == axis)
            .expect("ALL holds every axis");
        &self.groups[index]
    }

    /// My place on this axis.
    pub fn coord(&self, axis: Axis) -> usize {
        self.group(axis).rank()
    }
}

/// A rank's index along `axis`, and a number that the ranks which differ along it alone share.
fn coord_and_color(degrees: &Degrees, rank: usize, axis: Axis) -> (usize, usize) {
    // Of more ranks than can be counted none is beyond the first.
    let inner = Axis::ALL
        .iter()
        .skip_while(|a| **a != axis)
        .skip(1)
        .fold(1usize, |n, a| n.saturating_mul(degrees.of(*a)));
    let coord = rank / inner % degrees.of(axis);
    (coord, rank - coord * inner)
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
        let members = |axis| -> Vec<usize> {
            let color = coord_and_color(&degrees, 5, axis).1;
            (0..16)
                .filter(|&r| coord_and_color(&degrees, r, axis).1 == color)
                .collect()
        };
        assert_eq!(members(Axis::Ulysses), [4, 5]);
        assert_eq!(members(Axis::Pipe), [5, 7]);
        assert_eq!(members(Axis::Cfg), [1, 5]);
        assert_eq!(members(Axis::Data), [5, 13]);
        assert_eq!(members(Axis::Ring), [5]);
    }

    #[test]
    fn wrong_degrees_name_all_factors_and_a_plan() {
        let wrong = Degrees {
            ulysses: 3,
            ..Default::default()
        };
        let message = wrong.check(4).unwrap_err().to_string();
        assert!(
            message.contains("ulysses 3 = 3, but there are 4 ranks"),
            "{message}"
        );
        assert!(message.contains("ring 1 × ulysses 4"), "{message}");
        let zero = Degrees {
            pipe: 0,
            ..Default::default()
        };
        assert!(
            zero.check(1)
                .unwrap_err()
                .to_string()
                .contains("at least 1")
        );
        let cfg = Degrees {
            cfg: 3,
            ..Default::default()
        };
        assert!(
            cfg.check(3)
                .unwrap_err()
                .to_string()
                .contains("cfg at most 2")
        );
        let huge = Degrees {
            ulysses: usize::MAX,
            ring: 2,
            ..Default::default()
        };
        assert!(
            huge.check(2)
                .unwrap_err()
                .to_string()
                .contains("more than a machine can count")
        );
    }

    #[test]
    fn every_legal_plan_checks() {
        for world in 1..=32 {
            let plan = Degrees::default()
                .nearest(world)
                .expect("each world has a plan");
            plan.check(world).expect("the nearest plan is legal");
        }
    }
}
