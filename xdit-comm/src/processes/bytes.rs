//! Bytes of frames: numbers and texts in, numbers and texts out. Reading checks every length and never panics.

/// Why bytes are no frame.
pub(super) type Read<T> = Result<T, String>;

/// The most bytes of a text that is [`shortened`]: 8 KiB with the numbers of its frame.
pub(super) const MAX_SHORTENED: usize = 7936;

/// The beginning of a text, which fits a frame.
pub(super) fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MAX_SHORTENED);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads the fields of a frame, one after another.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| format!("{len} bytes are expected, {} are left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn number(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things, or the place of one.
    pub(super) fn index(&mut self) -> Read<usize> {
        let number = self.number()?;
        usize::try_from(number).map_err(|_| format!("the number {number} is too large"))
    }

    /// How many fields follow, each of at least `least` bytes. No frame makes a reader keep more than it has sent.
    pub(super) fn count(&mut self, least: usize) -> Read<usize> {
        let count = self.index()?;
        match count.checked_mul(least.max(1)) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(format!(
                "{count} fields are announced in {} bytes",
                self.0.len()
            )),
        }
    }

    pub(super) fn bytes(&mut self) -> Read<Vec<u8>> {
        let len = self.count(1)?;
        Ok(self.take(len)?.to_vec())
    }

    pub(super) fn text(&mut self) -> Read<String> {
        String::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    /// Several fields of one kind, each of at least `least` bytes.
    pub(super) fn several<T>(
        &mut self,
        least: usize,
        one: impl Fn(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let count = self.count(least)?;
        (0..count).map(|_| one(self)).collect()
    }

    /// Ignores what follows.
    pub(super) fn skip_rest(&mut self) {
        self.0 = &[];
    }

    /// Nothing may follow.
    pub(super) fn end(self) -> Read<()> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(format!("{left} bytes are left over")),
        }
    }
}

/// Writes the fields of a frame, one after another.
#[derive(Debug, Default)]
pub(super) struct FieldWriter(pub(super) Vec<u8>);

impl FieldWriter {
    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn index(&mut self, index: usize) -> &mut Self {
        self.number(index as u64)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.index(bytes.len()).0.extend(bytes);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn several<T>(
        &mut self,
        all: &[T],
        mut one: impl FnMut(&mut Self, &T),
    ) -> &mut Self {
        self.index(all.len());
        all.iter().for_each(|x| one(self, x));
        self
    }
}
