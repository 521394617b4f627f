//! Names of the axes of a mesh.

use std::fmt;

/// The name of an axis of a mesh. The caller chooses the axes; this crate defines none.
///
/// # Examples
/// ```
/// use xdit_comm::Axis;
/// const EXPERTS: Axis = Axis::new("experts");
/// assert_eq!(EXPERTS.to_string(), "experts");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axis(&'static str);

impl Axis {
    /// Creates an axis with this name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Returns the name of the axis in messages and reports.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
