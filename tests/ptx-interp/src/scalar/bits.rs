//! Moves, logic, shifts, bit fields, permutations of bytes and selections.

use crate::scalar::modifiers::Modifiers;
use crate::scalar::{Found, ScalarFn};
use crate::types::{Type, sign_extended, truncated};

fn mov<const BYTES: usize>(a: u64, _: u64, _: u64) -> u64 {
    truncated(a, BYTES)
}

fn mov_pred(a: u64, _: u64, _: u64) -> u64 {
    a & 1
}

fn and<const BYTES: usize>(a: u64, b: u64, _: u64) -> u64 {
    truncated(a & b, BYTES)
}

fn or<const BYTES: usize>(a: u64, b: u64, _: u64) -> u64 {
    truncated(a | b, BYTES)
}

fn xor<const BYTES: usize>(a: u64, b: u64, _: u64) -> u64 {
    truncated(a ^ b, BYTES)
}

fn not<const BYTES: usize>(a: u64, _: u64, _: u64) -> u64 {
    truncated(!a, BYTES)
}

fn not_pred(a: u64, _: u64, _: u64) -> u64 {
    !a & 1
}

fn cnot<const BYTES: usize>(a: u64, _: u64, _: u64) -> u64 {
    u64::from(truncated(a, BYTES) == 0)
}

/// A shift by the width or more gives 0. The amount is a u32.
fn shl<const BYTES: usize>(a: u64, b: u64, _: u64) -> u64 {
    let amount = b as u32 as usize;
    if amount >= BYTES * 8 {
        0
    } else {
        truncated(a << amount, BYTES)
    }
}

fn shr<const BYTES: usize>(a: u64, b: u64, _: u64) -> u64 {
    let amount = b as u32 as usize;
    if amount >= BYTES * 8 {
        0
    } else {
        truncated(a, BYTES) >> amount
    }
}

/// A shift by the width or more gives the sign.
fn shr_signed<const BYTES: usize>(a: u64, b: u64, _: u64) -> u64 {
    let amount = (b as u32 as usize).min(BYTES * 8 - 1);
    truncated((sign_extended(a, BYTES) >> amount) as u64, BYTES)
}

/// The upper half of `b:a` shifted left, or the lower half of it shifted right, by 0 to 31 (`wrap`) or to 32 (`clamp`).
fn funnel<const LEFT: bool, const WRAP: bool>(a: u64, b: u64, c: u64) -> u64 {
    let joined = (b << 32) | truncated(a, 4);
    let amount = if WRAP {
        c & 31
    } else {
        (c as u32 as u64).min(32)
    };
    if LEFT {
        (joined << amount) >> 32
    } else {
        truncated(joined >> amount, 4)
    }
}

/// Bits `b..b + c` of `a`; a signed field is extended by its highest bit, or by that of `a` if the field ends above it.
fn bfe<const BYTES: usize, const SIGNED: bool>(a: u64, b: u64, c: u64) -> u64 {
    let width = BYTES as u32 * 8;
    let (start, length) = ((b & 0xff) as u32, (c & 0xff) as u32);
    if length == 0 {
        return 0;
    }
    let a = truncated(a, BYTES);
    let field = if start < 64 { a >> start } else { 0 };
    let last = (start + length - 1).min(width - 1);
    let fill = SIGNED && (a >> last) & 1 == 1;
    let kept = length.min(width.saturating_sub(start));
    let mask = if kept >= 64 {
        u64::MAX
    } else {
        (1 << kept) - 1
    };
    let field = field & mask;
    truncated(if fill { field | !mask } else { field }, BYTES)
}

/// `bfi`: puts the low `length` bits of `a` into `b` from bit `start` on.
pub(crate) fn insert(a: u64, b: u64, start: u64, length: u64, bytes: usize) -> u64 {
    let (start, length) = (start & 0xff, length & 0xff);
    if start >= bytes as u64 * 8 {
        return truncated(b, bytes);
    }
    let mask = if length >= 64 {
        u64::MAX
    } else {
        (1 << length) - 1
    } << start;
    truncated((b & !mask) | ((a << start) & mask), bytes)
}

/// `lop3`: bit `4 a + 2 b + c` of the table, for every bit of the operands.
pub(crate) fn lop3(a: u64, b: u64, c: u64, table: u8) -> u64 {
    let terms = (0..8).filter(|i| table >> i & 1 == 1).map(|i| {
        let pick = |x: u64, bit: u8| if i & bit != 0 { x } else { !x };
        pick(a, 4) & pick(b, 2) & pick(c, 1)
    });
    truncated(terms.fold(0, |all, term| all | term), 4)
}

fn popc<const BYTES: usize>(a: u64, _: u64, _: u64) -> u64 {
    u64::from(truncated(a, BYTES).count_ones())
}

fn clz<const BYTES: usize>(a: u64, _: u64, _: u64) -> u64 {
    u64::from(truncated(a, BYTES).leading_zeros()) - (64 - BYTES as u64 * 8)
}

fn brev<const BYTES: usize>(a: u64, _: u64, _: u64) -> u64 {
    a.reverse_bits() >> (64 - BYTES * 8)
}

/// The position of the highest bit that differs from the sign, or all ones.
fn bfind<const BYTES: usize, const SIGNED: bool, const SHIFT: bool>(a: u64, _: u64, _: u64) -> u64 {
    let value = sign_extended(a, BYTES);
    let flipped = if SIGNED && value < 0 {
        !value as u64
    } else {
        value as u64
    };
    match truncated(flipped, BYTES).checked_ilog2() {
        None => 0xffff_ffff,
        Some(bit) if SHIFT => u64::from(BYTES as u32 * 8 - 1 - bit),
        Some(bit) => u64::from(bit),
    }
}

/// Chooses a byte, or its sign, for each of four selectors of four bits.
fn prmt(a: u64, b: u64, c: u64) -> u64 {
    let bytes = (truncated(a, 4) | (b << 32)).to_le_bytes();
    let chosen = |i: usize| {
        let selector = (c >> (4 * i)) as usize & 15;
        let byte = bytes[selector & 7];
        if selector & 8 == 0 {
            byte
        } else {
            ((byte as i8) >> 7) as u8
        }
    };
    u64::from(u32::from_le_bytes([
        chosen(0),
        chosen(1),
        chosen(2),
        chosen(3),
    ]))
}

/// The special modes of `prmt`: byte `i` of the result is byte `at(i, c)` of `b:a`.
fn prmt_mode(a: u64, b: u64, at: impl Fn(usize) -> usize) -> u64 {
    let bytes = (truncated(a, 4) | (b << 32)).to_le_bytes();
    u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at(i) & 7])))
}

fn prmt_f4e(a: u64, b: u64, c: u64) -> u64 {
    prmt_mode(a, b, |i| (c & 3) as usize + i)
}

fn prmt_b4e(a: u64, b: u64, c: u64) -> u64 {
    prmt_mode(a, b, |i| (c & 3) as usize + 8 - i)
}

fn prmt_rc8(a: u64, b: u64, c: u64) -> u64 {
    prmt_mode(a, b, |_| (c & 3) as usize)
}

fn prmt_ecl(a: u64, b: u64, c: u64) -> u64 {
    prmt_mode(a, b, |i| i.max((c & 3) as usize))
}

fn prmt_ecr(a: u64, b: u64, c: u64) -> u64 {
    prmt_mode(a, b, |i| i.min((c & 3) as usize))
}

fn prmt_rc16(a: u64, b: u64, c: u64) -> u64 {
    prmt_mode(a, b, |i| (i & 1) + 2 * (c & 1) as usize)
}

fn selp<const BYTES: usize>(a: u64, b: u64, p: u64) -> u64 {
    truncated(if p & 1 == 1 { a } else { b }, BYTES)
}

/// `a` if `c` is not negative, else `b`; of four bytes.
fn slct<const FLOAT: bool>(a: u64, b: u64, c: u64) -> u64 {
    let first = if FLOAT {
        f32::from_bits(c as u32) >= 0.0
    } else {
        c as i32 >= 0
    };
    truncated(if first { a } else { b }, 4)
}

/// One function for each width.
macro_rules! for_size {
    ($ty:expr, $f:ident) => {
        match $ty.size() {
            2 => &$f::<2> as ScalarFn,
            4 => &$f::<4>,
            8 => &$f::<8>,
            _ => return None,
        }
    };
}

/// One function for each width, and one for predicates.
macro_rules! for_logic {
    ($ty:expr, $f:ident) => {
        match $ty.size() {
            1 => &$f::<1> as ScalarFn,
            2 => &$f::<2>,
            4 => &$f::<4>,
            _ => &$f::<8>,
        }
    };
}

pub(super) fn lookup(m: &Modifiers) -> Found {
    if !m.plain() {
        return None;
    }
    let four = m.first_type.is_some_and(|ty| ty.size() == 4);
    if m.name == "slct" && four && m.only(&[]) && matches!(m.ty, Type::F32 | Type::S32) {
        return Some((
            if m.ty == Type::F32 {
                &slct::<true> as ScalarFn
            } else {
                &slct::<false>
            },
            3,
        ));
    }
    if m.first_type.is_some() {
        return None;
    }
    let (pred, signed) = (m.ty == Type::Pred, m.ty.is_signed());
    let (four, eight) = (m.ty.size() == 4, m.ty.size() == 8);
    Some(match (m.name, m.rest.as_slice()) {
        ("mov", []) if pred => (&mov_pred, 1),
        ("mov", []) => (for_size!(m.ty, mov), 1),
        ("and", []) => (for_logic!(m.ty, and), 2),
        ("or", []) => (for_logic!(m.ty, or), 2),
        ("xor", []) => (for_logic!(m.ty, xor), 2),
        ("not", []) if pred => (&not_pred, 1),
        ("not", []) => (for_size!(m.ty, not), 1),
        ("cnot", []) => (for_size!(m.ty, cnot), 1),
        ("shl", []) => (for_size!(m.ty, shl), 2),
        ("shr", []) if signed => (for_size!(m.ty, shr_signed), 2),
        ("shr", []) => (for_size!(m.ty, shr), 2),
        ("shf", ["l", "wrap"]) => (&funnel::<true, true>, 3),
        ("shf", ["l", "clamp"]) => (&funnel::<true, false>, 3),
        ("shf", ["r", "wrap"]) => (&funnel::<false, true>, 3),
        ("shf", ["r", "clamp"]) => (&funnel::<false, false>, 3),
        ("bfe", []) if four && signed => (&bfe::<4, true>, 3),
        ("bfe", []) if four => (&bfe::<4, false>, 3),
        ("bfe", []) if eight && signed => (&bfe::<8, true>, 3),
        ("bfe", []) if eight => (&bfe::<8, false>, 3),
        ("popc", []) => (for_size!(m.ty, popc), 1),
        ("clz", []) => (for_size!(m.ty, clz), 1),
        ("brev", []) => (for_size!(m.ty, brev), 1),
        ("bfind", []) if four && signed => (&bfind::<4, true, false>, 1),
        ("bfind", []) if four => (&bfind::<4, false, false>, 1),
        ("bfind", []) if eight && signed => (&bfind::<8, true, false>, 1),
        ("bfind", []) if eight => (&bfind::<8, false, false>, 1),
        ("bfind", ["shiftamt"]) if four && signed => (&bfind::<4, true, true>, 1),
        ("bfind", ["shiftamt"]) if four => (&bfind::<4, false, true>, 1),
        ("bfind", ["shiftamt"]) if eight && signed => (&bfind::<8, true, true>, 1),
        ("bfind", ["shiftamt"]) if eight => (&bfind::<8, false, true>, 1),
        ("prmt", []) => (&prmt, 3),
        ("prmt", ["f4e"]) => (&prmt_f4e, 3),
        ("prmt", ["b4e"]) => (&prmt_b4e, 3),
        ("prmt", ["rc8"]) => (&prmt_rc8, 3),
        ("prmt", ["ecl"]) => (&prmt_ecl, 3),
        ("prmt", ["ecr"]) => (&prmt_ecr, 3),
        ("prmt", ["rc16"]) => (&prmt_rc16, 3),
        ("selp", []) => (for_size!(m.ty, selp), 3),
        _ => return None,
    })
}
