//! Ranks on named axes.

use crate::{Axis, Error, Group, Result};
use std::fmt;

/// The number of ranks on each axis. The product of all is the size of the world. Axes are ordered outermost first: adjacent ranks
/// differ on the last axis.
///
/// # Examples
/// ```
/// use xdit_comm::{Axis, MeshShape};
/// let (rows, columns) = (Axis::new("rows"), Axis::new("columns"));
/// let shape = MeshShape::new([(rows, 2), (columns, 3)]);
/// assert_eq!(shape.to_string(), "rows 2 × columns 3");
/// assert_eq!((shape.coord(4, rows), shape.coord(4, columns)), (Some(1), Some(1)));
/// let message = shape.check(8).unwrap_err().to_string();
/// assert_eq!(message, "rows 2 × columns 3 = 6, but there are 8 ranks; the nearest plan for 8 ranks is rows 2 × columns 4");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshShape {
    sides: Vec<Side>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Side {
    axis: Axis,
    degree: usize,
    /// The largest degree that the caller allows.
    most: usize,
}

impl MeshShape {
    /// Creates a shape with these axes and degrees, outermost first.
    pub fn new(axes: impl IntoIterator<Item = (Axis, usize)>) -> Self {
        let sides = axes.into_iter().map(|(axis, degree)| Side {
            axis,
            degree,
            most: usize::MAX,
        });
        Self {
            sides: sides.collect(),
        }
    }

    /// Limits the degree of an axis to `most`.
    #[must_use]
    pub fn at_most(mut self, axis: Axis, most: usize) -> Self {
        for side in self.sides.iter_mut().filter(|side| side.axis == axis) {
            side.most = most;
        }
        self
    }

    /// Returns the axes, outermost first.
    pub fn axes(&self) -> impl Iterator<Item = Axis> {
        self.sides.iter().map(|side| side.axis)
    }

    /// Returns the degree of an axis, or `None` if the shape does not have it.
    pub fn degree(&self, axis: Axis) -> Option<usize> {
        let side = self.sides.iter().find(|side| side.axis == axis);
        side.map(|side| side.degree)
    }

    /// Returns the coordinate of a rank on an axis, or `None` if the shape does not have it.
    ///
    /// # Panics
    /// If its degree is 0.
    pub fn coord(&self, rank: usize, axis: Axis) -> Option<usize> {
        let index = self.sides.iter().position(|side| side.axis == axis)?;
        Some(self.coord_and_color(rank, index).0)
    }

    /// A rank's index along an axis, and a number that the ranks which differ along it alone share.
    fn coord_and_color(&self, rank: usize, index: usize) -> (usize, usize) {
        // Of more ranks than can be counted none is beyond the first.
        let inner = self.sides[index + 1..]
            .iter()
            .fold(1usize, |n, side| n.saturating_mul(side.degree));
        let coord = rank / inner % self.sides[index].degree;
        (coord, rank - coord * inner)
    }

    /// Returns the number of ranks, or `None` on overflow.
    pub fn product(&self) -> Option<usize> {
        let mut sides = self.sides.iter();
        sides.try_fold(1usize, |n, side| n.checked_mul(side.degree))
    }

    /// Checks that the product of the degrees is `world_size`.
    ///
    /// # Errors
    /// [`Error::Degrees`], which names every factor and the nearest valid plan.
    pub fn check(&self, world_size: usize) -> Result<()> {
        let twice = (self.sides.iter().enumerate())
            .find(|(i, side)| self.sides[..*i].iter().any(|other| other.axis == side.axis));
        if let Some((_, side)) = twice {
            return Err(Error::Degrees(format!("{self}: two axes {}", side.axis)));
        }
        let legal = |side: &Side| side.degree >= 1 && side.degree <= side.most;
        let legal = self.sides.iter().all(legal);
        if legal && self.product() == Some(world_size) {
            return Ok(());
        }
        let product = self
            .product()
            .map_or("more than a machine can count".to_owned(), |n| {
                n.to_string()
            });
        let reason = if legal {
            format!(", but there are {world_size} ranks")
        } else {
            let limited = self.sides.iter().filter(|side| side.most < usize::MAX);
            let most = limited.map(|side| format!(", and {} at most {}", side.axis, side.most));
            format!(": each degree is at least 1{}", most.collect::<String>())
        };
        let nearest = match self.nearest(world_size).first() {
            Some(plan) => format!("; the nearest plan for {world_size} ranks is {plan}"),
            None => String::new(),
        };
        Err(Error::Degrees(format!(
            "{self} = {product}{reason}{nearest}"
        )))
    }

    /// Returns all legal degrees for `world_size` ranks, those first that change the least: the sum over axes of |log of the ratio|.
    /// Of equals, those come first whose outer axes have the lower degrees. Empty for no rank, and for more than 4096.
    ///
    /// # Examples
    /// ```
    /// use xdit_comm::{Axis, MeshShape};
    /// let shape = MeshShape::new([(Axis::new("rows"), 2), (Axis::new("columns"), 2)]);
    /// let nearest = shape.nearest(3).into_iter().map(|plan| plan.to_string()).collect::<Vec<_>>();
    /// assert_eq!(nearest, ["rows 1 × columns 3", "rows 3 × columns 1"]);
    /// ```
    pub fn nearest(&self, world_size: usize) -> Vec<Self> {
        fn factor(left: usize, at: usize, plan: &mut MeshShape, out: &mut Vec<MeshShape>) {
            let Some(side) = plan.sides.get(at) else {
                if left == 1 {
                    out.push(plan.clone());
                }
                return;
            };
            let most = left.min(side.most);
            for degree in (1..=most).filter(|degree| left.is_multiple_of(*degree)) {
                plan.sides[at].degree = degree;
                factor(left / degree, at + 1, plan, out);
            }
        }
        // Beyond this many ranks the search would take longer than the answer is worth.
        if world_size == 0 || world_size > 4096 {
            return Vec::new();
        }
        let mut plans = Vec::new();
        factor(world_size, 0, &mut self.clone(), &mut plans);
        let distance = |plan: &Self| -> f64 {
            let pairs = plan.sides.iter().zip(&self.sides);
            pairs
                .map(|(a, b)| (a.degree as f64 / b.degree.max(1) as f64).ln().abs())
                .sum()
        };
        plans.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        plans
    }
}

impl fmt::Display for MeshShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, side) in self.sides.iter().enumerate() {
            let times = if i > 0 { " × " } else { "" };
            write!(f, "{times}{} {}", side.axis, side.degree)?;
        }
        Ok(())
    }
}

/// The ranks of a world on named axes. The last axis varies fastest.
#[derive(Debug, Clone)]
pub struct DeviceMesh {
    world: Group,
    shape: MeshShape,
    /// The group of each axis.
    groups: Vec<Group>,
}

impl DeviceMesh {
    /// Creates the mesh over `world`.
    ///
    /// # Collective
    /// Every rank of the world calls it with the same shape.
    ///
    /// # Errors
    /// [`Error::Degrees`] if the product of the degrees is not the size of the world; errors of [`Group::split`].
    pub fn new(world: &Group, shape: MeshShape) -> Result<Self> {
        shape.check(world.world_size())?;
        let groups = shape.axes().enumerate().map(|(index, axis)| {
            let (coord, color) = shape.coord_and_color(world.rank(), index);
            Ok(world.split(color, coord)?.named(axis))
        });
        Ok(Self {
            world: world.clone(),
            groups: groups.collect::<Result<_>>()?,
            shape,
        })
    }

    /// Returns the group of all ranks.
    pub fn world(&self) -> &Group {
        &self.world
    }

    /// Returns the axes and their degrees.
    pub fn shape(&self) -> &MeshShape {
        &self.shape
    }

    /// Returns the group of the ranks that differ from this one only on `axis`. It has one rank if the degree is 1.
    ///
    /// # Errors
    /// [`Error::Axis`] if the mesh has no such axis.
    pub fn group(&self, axis: Axis) -> Result<&Group> {
        let index = self.shape.axes().position(|own| own == axis);
        index.map(|index| &self.groups[index]).ok_or(Error::Axis {
            axis: axis.name(),
            mesh: self.shape.to_string(),
        })
    }

    /// Returns the coordinate of this rank on `axis`.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub fn coord(&self, axis: Axis) -> Result<usize> {
        Ok(self.group(axis)?.rank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Axis = Axis::new("a");
    const B: Axis = Axis::new("b");
    const C: Axis = Axis::new("c");

    #[test]
    fn the_last_axis_varies_fastest() {
        let shape = MeshShape::new([(A, 2), (B, 3), (C, 4)]);
        let places = |rank| [A, B, C].map(|axis| shape.coord(rank, axis).unwrap());
        assert_eq!(places(0), [0, 0, 0]);
        assert_eq!(places(1), [0, 0, 1]);
        assert_eq!(places(4), [0, 1, 0]);
        assert_eq!(places(23), [1, 2, 3]);
        let members = |index| -> Vec<usize> {
            let color = shape.coord_and_color(5, index).1;
            (0..24)
                .filter(|&r| shape.coord_and_color(r, index).1 == color)
                .collect()
        };
        assert_eq!(members(0), [5, 17]);
        assert_eq!(members(1), [1, 5, 9]);
        assert_eq!(members(2), [4, 5, 6, 7]);
    }

    #[test]
    fn wrong_degrees_name_all_factors_and_a_plan() {
        let message = |axes: &[(Axis, usize)], world| {
            let shape = MeshShape::new(axes.iter().copied()).at_most(B, 2);
            shape.check(world).unwrap_err().to_string()
        };
        let wrong = message(&[(A, 1), (B, 1), (C, 3)], 4);
        assert!(
            wrong.starts_with("a 1 × b 1 × c 3 = 3, but there are 4 ranks"),
            "{wrong}"
        );
        assert!(wrong.ends_with("is a 1 × b 1 × c 4"), "{wrong}");
        let zero = message(&[(A, 0)], 1);
        assert!(zero.contains("at least 1"), "{zero}");
        let most = message(&[(A, 1), (B, 3)], 3);
        assert!(
            most.contains("b at most 2") && most.contains("a 3 × b 1"),
            "{most}"
        );
        let huge = message(&[(A, usize::MAX), (C, 2)], 2);
        assert!(huge.contains("more than a machine can count"), "{huge}");
        let twice = message(&[(A, 1), (B, 1), (A, 1)], 1);
        assert!(twice.contains("two axes a"), "{twice}");
    }

    #[test]
    fn every_nearest_plan_is_legal() {
        for world in 1..=32 {
            let shape = MeshShape::new([(A, 1), (B, 1), (C, 1)]).at_most(B, 2);
            let plans = shape.nearest(world);
            assert!(!plans.is_empty(), "each world has a plan");
            for plan in plans {
                plan.check(world).expect("a legal plan");
            }
        }
    }

    #[test]
    fn an_axis_that_is_not_there_is_named() {
        let mesh = crate::threads::run(1, |world| {
            let mesh = DeviceMesh::new(&world, MeshShape::new([(A, 1)]))?;
            assert_eq!(mesh.coord(A)?, 0);
            mesh.coord(B)
        });
        let message = mesh.unwrap_err().to_string();
        assert!(message.contains("no axis b in the mesh a 1"), "{message}");
    }
}
