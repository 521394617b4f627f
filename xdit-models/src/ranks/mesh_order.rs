//! The order of the axes of a mesh.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xdit_comm::Axis;

use crate::error::{Error, Result};
use crate::quote;
use crate::ranks::axes;

/// The order of the axes of a mesh, outermost first: ranks that differ only on the last axis are neighbours. By default the order of
/// [`axes::ALL`]. It decides which ranks exchange what, and with ranks on several hosts what travels between hosts. It changes no
/// byte of an image.
///
/// # Examples
/// ```
/// use xdit_models::{Degrees, MeshOrder, axes};
/// // Ranks 0 and 1 pass keys and values to each other, ranks 0 and 2 exchange heads.
/// let order: MeshOrder = "data,cfg,pipe,ulysses,ring".parse()?;
/// let degrees = Degrees { ring: 2, ulysses: 2, order, ..Degrees::default() };
/// assert_eq!([0, 1, 2, 3].map(|rank| degrees.coord(rank, axes::RING)), [0, 1, 0, 1]);
/// assert_eq!(degrees.to_string(), "data 1 × cfg 1 × pipe 1 × ulysses 2 × ring 2");
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MeshOrder([Axis; axes::ALL.len()]);

impl MeshOrder {
    /// The order of [`axes::ALL`].
    pub const USUAL: Self = Self(axes::ALL);

    /// Returns the axes, outermost first.
    pub fn axes(self) -> [Axis; axes::ALL.len()] {
        self.0
    }
}

impl Default for MeshOrder {
    fn default() -> Self {
        Self::USUAL
    }
}

impl FromStr for MeshOrder {
    type Err = Error;

    /// Reads the names of all axes, separated by commas.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if an axis is missing, occurs twice, or does not exist.
    fn from_str(text: &str) -> Result<Self> {
        let axis = |name: &str| axes::named(name.trim());
        let given: Option<Vec<Axis>> = text.split(',').map(axis).collect();
        let order = given.and_then(|given| <[Axis; axes::ALL.len()]>::try_from(given).ok());
        let whole = order.filter(|order| axes::ALL.iter().all(|axis| order.contains(axis)));
        whole.map(Self).ok_or_else(|| {
            let names = quote::joined(&axes::ALL, ",");
            let allowed = format!("{names} in some order, outermost first");
            Error::invalid("mesh_order", text, allowed)
        })
    }
}

impl fmt::Display for MeshOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(Axis::name).join(","))
    }
}

impl Serialize for MeshOrder {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MeshOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_survives_its_text() {
        let usual = MeshOrder::default();
        assert_eq!(usual.to_string(), "data,cfg,pipe,ring,ulysses");
        for text in ["data,cfg,pipe,ring,ulysses", "ulysses,ring,data,pipe,cfg"] {
            let order: MeshOrder = text.parse().unwrap();
            assert_eq!(order.to_string(), text);
            let json = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<MeshOrder>(&json).unwrap(), order);
        }
        let spaced: MeshOrder = "data, cfg, pipe, ulysses, ring".parse().unwrap();
        assert_eq!(spaced.axes()[3], axes::ULYSSES);
    }

    #[test]
    fn an_order_without_an_axis_is_refused() {
        for text in [
            "",
            "ring",
            "data,cfg,pipe,ring",
            "data,cfg,pipe,ring,ring",
            "data,cfg,pipe,ring,tensor",
            "data,cfg,pipe,ring,ulysses,ulysses",
        ] {
            let message = text.parse::<MeshOrder>().unwrap_err().to_string();
            assert!(
                message.contains("data,cfg,pipe,ring,ulysses in some order"),
                "{message}"
            );
            assert!(serde_json::from_str::<MeshOrder>(&format!("{text:?}")).is_err());
        }
    }
}
