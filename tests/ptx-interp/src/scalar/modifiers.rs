//! The parts of an opcode between its name and its type.

use crate::scalar::rounding::Rounding;
use crate::types::Type;

/// An opcode such as `fma.rn.ftz.f32`, in parts.
#[derive(Clone, Debug)]
pub(crate) struct Modifiers<'a> {
    pub(crate) name: &'a str,
    /// The last type.
    pub(crate) ty: Type,
    /// The type before it, of `cvt` and `set`.
    pub(crate) first_type: Option<Type>,
    pub(crate) rounding: Option<Rounding>,
    /// Rounds to an integer in floating point (`rni`, `rzi`, `rmi`, `rpi`).
    pub(crate) integral: bool,
    pub(crate) approx: bool,
    pub(crate) full: bool,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
    pub(crate) nan: bool,
    /// What is left: `lo`, `wide`, `wrap`, comparisons.
    pub(crate) rest: Vec<&'a str>,
}

impl<'a> Modifiers<'a> {
    pub(crate) fn of(opcode: &[&'a str]) -> Option<Self> {
        let (name, parts) = opcode.split_first()?;
        let types: Vec<Type> = parts.iter().filter_map(|p| Type::from_name(p)).collect();
        if types.len() > 2 {
            return None;
        }
        let mut all = Self {
            name,
            ty: *types.last()?,
            first_type: (types.len() > 1).then(|| types[0]),
            rounding: None,
            integral: false,
            approx: false,
            full: false,
            ftz: false,
            sat: false,
            relu: false,
            nan: false,
            rest: Vec::new(),
        };
        for part in parts {
            match *part {
                "rn" => all.rounding = Some(Rounding::Nearest),
                "rz" => all.rounding = Some(Rounding::Zero),
                "rm" => all.rounding = Some(Rounding::Down),
                "rp" => all.rounding = Some(Rounding::Up),
                "rna" => all.rounding = Some(Rounding::NearestAway),
                "rni" | "rzi" | "rmi" | "rpi" => {
                    all.integral = true;
                    all.rounding = Some(match *part {
                        "rni" => Rounding::Nearest,
                        "rzi" => Rounding::Zero,
                        "rmi" => Rounding::Down,
                        _ => Rounding::Up,
                    });
                }
                "approx" => all.approx = true,
                "full" => all.full = true,
                "ftz" => all.ftz = true,
                "sat" => all.sat = true,
                "relu" => all.relu = true,
                "NaN" => all.nan = true,
                other if Type::from_name(other).is_some() => {}
                other => all.rest.push(other),
            }
        }
        Some(all)
    }

    /// Whether the parts that are left are exactly these.
    pub(crate) fn only(&self, rest: &[&str]) -> bool {
        self.rest == rest
    }

    /// Whether the opcode has no modifier that changes floating point.
    pub(crate) fn plain(&self) -> bool {
        self.rounding.is_none()
            && !(self.approx || self.full || self.ftz || self.sat || self.relu || self.nan)
    }
}
