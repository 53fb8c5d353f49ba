//! Documents in which nothing differs but the numbers of some lists, such as a V2 request with a tensor per column.

use crate::numbers::{self, Kind};

/// One form of documents.
#[derive(Debug)]
pub struct Columns {
    pieces: Vec<Vec<u8>>,
    kinds: Vec<Kind>,
    rows: usize,
}

impl Columns {
    /// Know a form: `pieces` stand before, between and after the lists, one of `rows` numbers for each of `kinds`.
    #[must_use]
    pub fn new(pieces: Vec<Vec<u8>>, kinds: Vec<Kind>, rows: usize) -> Option<Self> {
        (pieces.len() == kinds.len() + 1 && rows > 0).then_some(Self { pieces, kinds, rows })
    }

    /// Return the numbers of a document of this form row by row, each row's elements in the lists' order.
    #[must_use]
    pub fn read(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut rest = body.strip_prefix(self.pieces[0].as_slice())?;
        let mut columns = Vec::new();
        let mut places = Vec::with_capacity(self.kinds.len());
        for (piece, &kind) in self.pieces[1..].iter().zip(&self.kinds) {
            places.push(columns.len());
            let read = numbers::part(rest, kind, self.rows, &mut columns)?;
            rest = rest[read..].strip_prefix(piece.as_slice())?;
        }
        if !rest.is_empty() {
            return None;
        }
        Some(if self.rows == 1 { columns } else { self.by_rows(&columns, &places) })
    }

    fn by_rows(&self, columns: &[u8], places: &[usize]) -> Vec<u8> {
        let mut out = Vec::with_capacity(columns.len());
        for row in 0..self.rows {
            for (&place, kind) in places.iter().zip(&self.kinds) {
                let start = place + row * kind.size();
                out.extend_from_slice(&columns[start..start + kind.size()]);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(rows: usize) -> Columns {
        let pieces = ["{a:", ",b:", "}"].map(|piece| piece.as_bytes().to_vec());
        Columns::new(pieces.into(), vec![Kind::Unsigned(1), Kind::Unsigned(2)], rows).unwrap()
    }

    #[test]
    fn lists_are_read_by_rows() {
        assert_eq!(form(1).read(b"{a:[7],b:[258]}"), Some(vec![7, 2, 1]));
        assert_eq!(form(2).read(b"{a:[7, 8],b:[1,2]}"), Some(vec![7, 1, 0, 8, 2, 0]));
    }

    #[test]
    fn other_documents_are_left() {
        for body in ["{a:[7],b:[1,2]}", "{a:[7],b:[1]} ", "{a:[7],c:[1]}", "{a:[x],b:[1]}", "{a:[7]", ""] {
            assert_eq!(form(1).read(body.as_bytes()), None, "{body}");
        }
        assert!(Columns::new(vec![], vec![], 1).is_none());
    }
}
