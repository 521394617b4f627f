//! The descriptor of a tensor in global memory, for copies of tiles. A double of the driver writes it where
//! `cuTensorMapEncodeTiled` would; the layout is our own, because NVIDIA's is not public.

use std::fmt;

const MAGIC: [u8; 8] = *b"ptxtile1";

/// How the 16-byte pieces of a tile are permuted in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// Not at all.
    None,
    /// Within 32 bytes.
    Bytes32,
    /// Within 64 bytes.
    Bytes64,
    /// Within 128 bytes.
    Bytes128,
}

impl Swizzle {
    /// The bytes within which pieces are permuted: the most that a row of a tile may have.
    pub fn span(self) -> usize {
        match self {
            Self::None => 16,
            Self::Bytes32 => 32,
            Self::Bytes64 => 64,
            Self::Bytes128 => 128,
        }
    }

    /// Where the byte of an address lies: some bits from 4 on are exchanged by those from 7 on.
    pub fn place(self, address: u64) -> u64 {
        let bits = (self.span() as u64 / 16) - 1;
        address ^ (((address >> 7) & bits) << 4)
    }
}

/// A tensor of one to five dims in global memory, and the tile that one copy moves. The first dim is the innermost one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Where the tensor begins.
    pub address: u64,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element: usize,
    /// Elements of each dim.
    pub dims: Vec<u64>,
    /// Bytes between neighbours of each dim but the first, whose elements are contiguous.
    pub strides: Vec<u64>,
    /// Elements of a tile in each dim.
    pub tile: Vec<u32>,
    /// How shared memory is permuted.
    pub swizzle: Swizzle,
}

/// Why a tensor cannot be copied by tiles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tensor map: {0}")]
pub struct TensorMapError(String);

fn wrong<T>(message: impl fmt::Display) -> Result<T, TensorMapError> {
    Err(TensorMapError(message.to_string()))
}

impl TensorMap {
    /// The bytes of a tile.
    pub fn tile_bytes(&self) -> usize {
        self.tile.iter().map(|n| *n as usize).product::<usize>() * self.element
    }

    /// Checks what `cuTensorMapEncodeTiled` checks.
    ///
    /// # Errors
    /// The first rule that the map breaks.
    pub fn check(&self) -> Result<(), TensorMapError> {
        let rank = self.dims.len();
        if !(1..=5).contains(&rank) || self.strides.len() + 1 != rank || self.tile.len() != rank {
            return wrong(
                "1 to 5 dims are possible, with a stride for each but the first and a size of the tile for each",
            );
        }
        if ![1, 2, 4, 8].contains(&self.element) {
            return wrong(format!(
                "elements of {} bytes are not possible",
                self.element
            ));
        }
        if !self.address.is_multiple_of(16) {
            return wrong(format!(
                "the address {:#x} is no multiple of 16",
                self.address
            ));
        }
        if let Some(dim) = self.dims.iter().find(|d| !(1..=1 << 32).contains(*d)) {
            return wrong(format!("a dim has {dim} elements; 1 to 2^32 are possible"));
        }
        if let Some(stride) = self
            .strides
            .iter()
            .find(|s| !s.is_multiple_of(16) || **s >= 1 << 40)
        {
            return wrong(format!(
                "a stride of {stride} bytes is no multiple of 16 below 2^40"
            ));
        }
        if let Some(size) = self.tile.iter().find(|n| !(1..=256).contains(*n)) {
            return wrong(format!(
                "a dim of the tile has {size} elements; 1 to 256 are possible"
            ));
        }
        let row = self.tile[0] as usize * self.element;
        if !row.is_multiple_of(16) {
            return wrong(format!(
                "a row of the tile has {row} bytes, which is no multiple of 16"
            ));
        }
        if self.swizzle != Swizzle::None && row > self.swizzle.span() {
            return wrong(format!(
                "a row of the tile has {row} bytes, more than the {} of the swizzle",
                self.swizzle.span()
            ));
        }
        Ok(())
    }

    /// The descriptor that a kernel receives.
    ///
    /// # Errors
    /// As `check`.
    pub fn encode(&self) -> Result<[u8; 128], TensorMapError> {
        self.check()?;
        let mut bytes = MAGIC.to_vec();
        let swizzle = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::Bytes32 => 1,
            Swizzle::Bytes64 => 2,
            Swizzle::Bytes128 => 3,
        };
        bytes.extend([self.dims.len() as u8, self.element as u8, swizzle]);
        bytes.extend(self.address.to_le_bytes());
        for dim in &self.dims {
            bytes.extend((dim - 1).to_le_bytes()[..4].iter());
        }
        for stride in &self.strides {
            bytes.extend(stride.to_le_bytes());
        }
        for size in &self.tile {
            bytes.extend((*size as u16).to_le_bytes());
        }
        bytes.resize(128, 0);
        let mut out = [0; 128];
        out.copy_from_slice(&bytes);
        Ok(out)
    }

    /// The map of a descriptor that `encode` wrote.
    ///
    /// # Errors
    /// Bytes that `encode` did not write.
    pub fn decode(bytes: &[u8; 128]) -> Result<Self, TensorMapError> {
        let mut at = MAGIC.len();
        if bytes[..at] != MAGIC {
            return wrong(
                "these bytes are no descriptor: cuTensorMapEncodeTiled did not write them",
            );
        }
        let mut take = |count: usize| {
            let mut value = [0; 8];
            if let Some(found) = bytes.get(at..at + count) {
                value[..count].copy_from_slice(found);
            }
            at += count;
            u64::from_le_bytes(value)
        };
        let (rank, element, swizzle) = (take(1) as usize, take(1) as usize, take(1));
        if !(1..=5).contains(&rank) {
            return wrong("the descriptor is damaged");
        }
        let map = Self {
            element,
            swizzle: match swizzle {
                0 => Swizzle::None,
                1 => Swizzle::Bytes32,
                2 => Swizzle::Bytes64,
                _ => Swizzle::Bytes128,
            },
            address: take(8),
            dims: (0..rank).map(|_| take(4) + 1).collect(),
            strides: (1..rank).map(|_| take(8)).collect(),
            tile: (0..rank).map(|_| take(2) as u32).collect(),
        };
        map.check()?;
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap {
            address: 0x7000_0000_0100,
            element: 2,
            dims: vec![1 << 32, 7, 3, 2, 5],
            strides: vec![1 << 34, 1 << 36, 1 << 37, 1 << 38],
            tile: vec![64, 7, 1, 2, 1],
            swizzle: Swizzle::Bytes128,
        }
    }

    #[test]
    fn a_descriptor_holds_the_map() {
        assert_eq!(TensorMap::decode(&map().encode().unwrap()).unwrap(), map());
        assert!(TensorMap::decode(&[0; 128]).is_err());
    }

    #[test]
    fn rules() {
        assert!(
            TensorMap {
                address: 8,
                ..map()
            }
            .encode()
            .is_err()
        );
        assert!(
            TensorMap {
                strides: vec![24, 32, 32, 32],
                ..map()
            }
            .encode()
            .is_err()
        );
        assert!(
            TensorMap {
                swizzle: Swizzle::Bytes64,
                ..map()
            }
            .encode()
            .is_err()
        );
        assert!(
            TensorMap {
                tile: vec![4, 1, 1, 1, 1],
                ..map()
            }
            .encode()
            .is_err()
        );
        assert!(
            TensorMap {
                tile: vec![64, 257, 1, 1, 1],
                ..map()
            }
            .encode()
            .is_err()
        );
        assert!(
            TensorMap {
                dims: vec![],
                ..map()
            }
            .encode()
            .is_err()
        );
    }

    #[test]
    fn swizzles_permute_pieces_of_16_bytes() {
        assert_eq!(Swizzle::Bytes128.place(128 * 3 + 16), 128 * 3 + 32);
        assert_eq!(Swizzle::Bytes64.place(128 * 3 + 16), 128 * 3 + 32);
        assert_eq!(Swizzle::Bytes32.place(128 + 4), 128 + 20);
        assert_eq!(Swizzle::None.place(1000), 1000);
    }
}
