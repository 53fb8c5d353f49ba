//! Lists of JSON numbers as little-endian elements, where every one of them is plain; whatever is not is left to
//! whoever can say what is wrong with it.

/// What elements are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Floats, rounded to the nearest from the nearest f64; none beyond the greatest.
    Float32,
    /// Floats.
    Float64,
    /// Integers of so many bytes, without fraction or exponent; none out of range.
    Signed(u8),
    /// The same.
    Unsigned(u8),
}

impl Kind {
    /// Return the kind of numpy's letter and size, such as `f4`; None for others.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "f4" => Self::Float32,
            "f8" => Self::Float64,
            "i1" => Self::Signed(1),
            "i2" => Self::Signed(2),
            "i4" => Self::Signed(4),
            "i8" => Self::Signed(8),
            "u1" => Self::Unsigned(1),
            "u2" => Self::Unsigned(2),
            "u4" => Self::Unsigned(4),
            "u8" => Self::Unsigned(8),
            _ => return None,
        })
    }

    /// Bytes of an element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float64 => 8,
            Self::Signed(size) | Self::Unsigned(size) => size.into(),
        }
    }

    fn write(self, token: &str, is_integer: bool, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Float32 => {
                let value = float(token, is_integer)?;
                if value.abs() > f64::from(f32::MAX) {
                    return None;
                }
                #[allow(clippy::cast_possible_truncation)] // rounding is what is wanted
                out.extend_from_slice(&(value as f32).to_le_bytes());
            }
            Self::Float64 => out.extend_from_slice(&float(token, is_integer)?.to_le_bytes()),
            Self::Signed(size) if is_integer => {
                let value: i64 = token.parse().ok()?;
                let unused = 64 - 8 * u32::from(size);
                if (value << unused) >> unused != value {
                    return None;
                }
                out.extend_from_slice(&value.to_le_bytes()[..size.into()]);
            }
            Self::Unsigned(size) if is_integer => {
                let value: u64 = token.parse().ok()?;
                let unused = 64 - 8 * u32::from(size);
                if (value << unused) >> unused != value {
                    return None;
                }
                out.extend_from_slice(&value.to_le_bytes()[..size.into()]);
            }
            _ => return None,
        }
        Some(())
    }
}

/// Read `[n, n, …]` of `count` numbers.
#[must_use]
pub fn list(text: &[u8], kind: Kind, count: usize) -> Option<Vec<u8>> {
    let mut reader = Reader::new(text)?;
    let mut out = Vec::with_capacity(room(text, kind, count));
    reader.list(kind, count, &mut out)?;
    reader.is_done().then_some(out)
}

/// Read `[n, n, …]` of `count` numbers at the start of `text` into `out`; return where it ends.
pub fn part(text: &[u8], kind: Kind, count: usize, out: &mut Vec<u8>) -> Option<usize> {
    // A list ends at its first bracket: what follows may be anything.
    let end = 1 + text.iter().position(|&byte| byte == b']')?;
    Reader::new(&text[..end])?.list(kind, count, out)?;
    Some(end)
}

/// Read `[[n, …], [n, …], …]` of at least one and at most `most` rows of `width` numbers each.
#[must_use]
pub fn rows(text: &[u8], kind: Kind, width: usize, most: usize) -> Option<Vec<u8>> {
    let mut reader = Reader::new(text)?;
    let mut out = Vec::with_capacity(room(text, kind, width));
    reader.expect(b'[')?;
    for _ in 0..most {
        reader.list(kind, width, &mut out)?;
        match reader.next()? {
            b',' => {}
            b']' => return reader.is_done().then_some(out),
            _ => return None,
        }
    }
    None
}

/// Bytes to begin with; never more than the text could fill.
fn room(text: &[u8], kind: Kind, count: usize) -> usize {
    count.min(text.len()).saturating_mul(kind.size())
}

fn float(token: &str, is_integer: bool) -> Option<f64> {
    let value: f64 = token.parse().ok()?;
    // An integer has no negative zero.
    value.is_finite().then_some(if is_integer && value == 0.0 { 0.0 } else { value })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Option<Self> {
        Some(Self { text: std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?, at: 0 })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Return the next byte that is no white space, and go past it.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let found = self.peek()?;
        self.at += 1;
        Some(found)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn is_done(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    fn list(&mut self, kind: Kind, count: usize, out: &mut Vec<u8>) -> Option<()> {
        self.expect(b'[')?;
        for place in 0..count {
            if place > 0 {
                self.expect(b',')?;
            }
            self.skip_space();
            let (token, is_integer) = self.number()?;
            kind.write(token, is_integer, out)?;
        }
        self.expect(b']')
    }

    /// Go past a number as JSON has it, and return it, and whether it has neither fraction nor exponent.
    fn number(&mut self) -> Option<(&'a str, bool)> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some((&self.text[start..self.at], is_integer))
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str, count: usize) -> Option<Vec<f32>> {
        let raw = list(text.as_bytes(), Kind::Float32, count)?;
        Some(raw.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect())
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(floats("[1, -2.5,3e2 ,\t0.1E-1]", 4), Some(vec![1.0, -2.5, 300.0, 0.01]));
        assert_eq!(floats(" [ ] ", 0), Some(vec![]));
        assert!(floats("[-0.0]", 1).unwrap()[0].is_sign_negative());
        assert!(floats("[-0]", 1).unwrap()[0].is_sign_positive());
        assert_eq!(rows(b"[[1,2],[3,4]]", Kind::Unsigned(1), 2, 2), Some(vec![1, 2, 3, 4]));
        assert_eq!(list(b"[-1,127]", Kind::Signed(1), 2), Some(vec![255, 127]));
    }

    #[test]
    fn what_is_no_plain_list_is_left() {
        for text in [
            "[1,2", "[1 2]", "[1,]", "[,1]", "[01]", "[+1]", "[.5]", "[1.]", "[1e]", "[-]", "[1]x", "[null]", "[NaN]",
            "[[1]]", "[1,2]",
        ] {
            assert_eq!(floats(text, 1), None, "{text}");
        }
        assert_eq!(floats("[3.5e38]", 1), None);
        assert_eq!(floats("[1e999]", 1), None);
        assert_eq!(list(b"[128]", Kind::Signed(1), 1), None);
        assert_eq!(list(b"[-1]", Kind::Unsigned(8), 1), None);
        assert_eq!(list(b"[1.0]", Kind::Signed(8), 1), None);
        assert_eq!(rows(b"[]", Kind::Float32, 1, 9), None);
        assert_eq!(rows(b"[[1],[2]]", Kind::Float32, 1, 1), None);
        assert_eq!(rows(b"[[1],[2,3]]", Kind::Float32, 1, 9), None);
        assert_eq!(list(b"[1]", Kind::Float32, usize::MAX), None);
    }
}
