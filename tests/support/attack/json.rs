//! Damages the structure of JSON: drops, doubles and nests members, changes their types, swaps them between files.

use serde_json::Value;

use super::Rng;

/// JSON that need not be valid: an object may have a key twice, and a value may be any text.
#[derive(Clone, Debug)]
pub enum Tree {
    /// A value as it is written.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object's keys and values.
    Object(Vec<(String, Self)>),
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(list) => Self::List(list.iter().map(Self::from).collect()),
            Value::Object(map) => {
                let members = map.iter().map(|(key, value)| (key.clone(), value.into()));
                Self::Object(members.collect())
            }
            other => Self::Text(other.to_string()),
        }
    }
}

impl Tree {
    /// The JSON text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::List(list) => {
                out.push('[');
                for (i, item) in list.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    out.push_str(&Value::from(key.as_str()).to_string());
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::List(list) => list.len(),
            Self::Object(members) => members.len(),
        }
    }

    fn child(&mut self, i: usize) -> &mut Self {
        match self {
            Self::List(list) => &mut list[i],
            Self::Object(members) => &mut members[i].1,
            Self::Text(_) => self,
        }
    }

    /// Somewhere in the tree; shallow places are found more often than the thousands of pieces of a vocabulary.
    fn place(&mut self, rng: &mut Rng) -> &mut Self {
        let len = self.len();
        if len == 0 || rng.one_in(4) {
            return self;
        }
        let i = rng.below(len);
        self.child(i).place(rng)
    }

    /// A part of the tree that lies in another.
    fn part(&mut self, rng: &mut Rng) -> Self {
        self.place(rng).clone()
    }

    /// Damages the tree in one place. `others` are the trees of other files.
    pub fn damage(&mut self, rng: &mut Rng, others: &[Self]) {
        let place = self.place(rng);
        let len = place.len();
        let i = rng.below(len);
        match (rng.below(9), &mut *place) {
            (0, Self::List(list)) if len > 0 => drop(list.remove(i)),
            (0, Self::Object(members)) if len > 0 => drop(members.remove(i)),
            (1, Self::List(list)) if len > 0 => {
                let item = list[i].clone();
                let times = bounded(*rng.pick(&[1, 2, 40, 1000]), item.text().len());
                list.splice(i..i, std::iter::repeat_n(item, times));
            }
            (1, Self::Object(members)) if len > 0 => {
                let mut member = members[i].clone();
                if rng.one_in(2) {
                    member.1 = other_type(rng);
                }
                members.push(member);
            }
            (2, place) => *place = nested(place.clone(), rng),
            (3 | 4, place) => *place = other_type(rng),
            (5, place) if !others.is_empty() => {
                let other = rng.below(others.len());
                *place = others[other].clone().part(rng);
            }
            (6, Self::Object(members)) if len > 0 => members[i].0 = key(rng),
            (7, Self::Object(members)) if len > 1 => {
                let j = rng.below(len);
                let value = members[j].1.clone();
                members[i].1 = value;
            }
            (_, place) => *place.place(rng) = other_type(rng),
        }
    }
}

/// How many times, at most `times`, something of `len` bytes is repeated, so that files stay below their own limits.
pub(super) fn bounded(times: usize, len: usize) -> usize {
    times.min((16 << 20) / (len + 16)).max(1)
}

/// `tree` in lists and objects, a few or very many.
fn nested(tree: Tree, rng: &mut Rng) -> Tree {
    let depth = *rng.pick(&[1, 2, 15, 17, 100, 126, 129, 5_000, 100_000]);
    let (start, end) = *rng.pick(&[
        ("[", "]"),
        ("{\"a\":", "}"),
        ("{\"type\":\"Sequence\",\"normalizers\":[", "]}"),
        ("{\"type\":\"Sequence\",\"pretokenizers\":[", "]}"),
        ("{\"type\":\"Sequence\",\"processors\":[", "]}"),
        ("{\"type\":\"Sequence\",\"decoders\":[", "]}"),
        ("{\"text_config\":", "}"),
    ]);
    Tree::Text([start.repeat(depth), tree.text(), end.repeat(depth)].concat())
}

/// A value that is likely not of the type that belongs here, or absurd.
fn other_type(rng: &mut Rng) -> Tree {
    const VALUES: [&str; 36] = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "3",
        "7",
        "-1",
        "-0.0",
        "0.5",
        "1e-320",
        "255",
        "65537",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "1e18",
        "1e308",
        "1e400",
        "-1e308",
        "NaN",
        "-Infinity",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\u001b[31m\\n\"",
        "\"../../x\"",
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "{\"\":{}}",
        "{\"type\":\"Sequence\"}",
    ];
    Tree::Text(match rng.below(12) {
        0 => format!("\"{}\"", "x".repeat(*rng.pick(&[100, 1_025, 100_000]))),
        1 => "9".repeat(*rng.pick(&[20, 400])),
        2 => format!("[{}0]", "0,".repeat(*rng.pick(&[10, 1_000, 100_000]))),
        _ => (*rng.pick(&VALUES)).to_owned(),
    })
}

fn key(rng: &mut Rng) -> String {
    match rng.below(3) {
        0 => String::new(),
        1 => "k".repeat(*rng.pick(&[1, 10_000])),
        _ => (*rng.pick(&[
            "type",
            "_class_name",
            "vocab",
            "\u{1b}[2J",
            "../x",
            "__metadata__",
        ]))
        .to_owned(),
    }
}
