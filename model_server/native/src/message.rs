//! gRPC's framing inside a stream: a flag, four bytes of length, the message; and the units of `grpc-timeout`.

use bytes::{Buf, Bytes, BytesMut};

use crate::budget::{Account, Claim};
use std::sync::Arc;

const PREFIX_BYTES: usize = 5;

/// Why a stream's bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The prefix is no prefix, or the stream does not end with its message.
    Malformed,
    /// The message is longer than allowed.
    TooLarge,
    /// The connection or the process holds too much already.
    NoRoom,
}

/// One message as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether they are compressed.
    pub compressed: bool,
}

/// Puts messages together from the DATA frames of one stream.
#[derive(Debug)]
pub struct Inbox {
    limit: usize,
    first: Bytes,
    rest: BytesMut,
    claim: Option<Claim>,
}

impl Inbox {
    /// Refuse messages of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, first: Bytes::new(), rest: BytesMut::new(), claim: None }
    }

    /// Append the payload of a frame.
    pub fn push(&mut self, payload: Bytes) -> Result<(), Refusal> {
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = payload;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.rest.extend_from_slice(&payload);
        }
        self.length().map(|_| ())
    }

    /// Claim room for what is not whole yet; to be called once per turn, so that whole messages cost nothing.
    pub fn hold(&mut self, account: &Arc<Account>) -> Result<(), Refusal> {
        let (held, now) = (self.claim.as_ref().map_or(0, Claim::bytes), self.bytes().len());
        if now <= held {
            return Ok(());
        }
        let roomy = match &mut self.claim {
            Some(claim) => claim.grow(now - held),
            empty => {
                *empty = account.claim(now);
                empty.is_some()
            }
        };
        if roomy { Ok(()) } else { Err(Refusal::NoRoom) }
    }

    /// Return the next whole message of a stream of them.
    pub fn pop(&mut self) -> Result<Option<Message>, Refusal> {
        let Some((compressed, length)) = self.length()? else { return Ok(None) };
        let end = PREFIX_BYTES + length;
        if self.bytes().len() < end {
            return Ok(None);
        }
        let mut bytes = if self.rest.is_empty() { self.first.split_to(end) } else { self.rest.split_to(end).freeze() };
        bytes.advance(PREFIX_BYTES);
        self.claim = None;
        Ok(Some(Message { bytes, compressed }))
    }

    /// Return the only message of a stream that has ended.
    pub fn only(&mut self) -> Result<Message, Refusal> {
        let message = self.pop()?.ok_or(Refusal::Malformed)?;
        if self.is_empty() { Ok(message) } else { Err(Refusal::Malformed) }
    }

    /// Whether nothing of another message has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    fn bytes(&self) -> &[u8] {
        if self.rest.is_empty() { &self.first } else { &self.rest }
    }

    fn length(&self) -> Result<Option<(bool, usize)>, Refusal> {
        let bytes = self.bytes();
        let Some(&flag) = bytes.first() else { return Ok(None) };
        if flag > 1 {
            return Err(Refusal::Malformed);
        }
        let Some(&[a, b, c, d]) = bytes.get(1..PREFIX_BYTES).and_then(|four| four.first_chunk()) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.limit { Err(Refusal::TooLarge) } else { Ok(Some((flag == 1, length))) }
    }
}

/// Return the seconds of a `grpc-timeout`; None if it is none.
#[must_use]
pub fn timeout_s(value: &[u8]) -> Option<f64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = match unit {
        b'H' => 3600.0,
        b'M' => 60.0,
        b'S' => 1.0,
        b'm' => 1e-3,
        b'u' => 1e-6,
        b'n' => 1e-9,
        _ => return None,
    };
    let amount: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(amount * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("short");
        [&[0], &length.to_be_bytes()[..], message].concat()
    }

    #[test]
    fn a_message_is_whole_however_it_is_cut() {
        let sent = framed(b"0123456789");
        for cut in 0..=sent.len() {
            let mut inbox = Inbox::new(10);
            inbox.push(Bytes::copy_from_slice(&sent[..cut])).expect("allowed");
            inbox.push(Bytes::copy_from_slice(&sent[cut..])).expect("allowed");
            assert_eq!(inbox.only().expect("whole").bytes, &b"0123456789"[..], "{cut}");
        }
    }

    #[test]
    fn messages_of_a_stream_follow_each_other() {
        let mut inbox = Inbox::new(10);
        inbox.push(Bytes::from([framed(b"a"), framed(b""), framed(b"bc")[..6].to_vec()].concat())).expect("allowed");
        assert_eq!(inbox.pop().expect("whole").expect("there").bytes, &b"a"[..]);
        assert_eq!(inbox.pop().expect("whole").expect("there").bytes, &b""[..]);
        assert_eq!(inbox.pop(), Ok(None));
        inbox.push(Bytes::from_static(b"c")).expect("allowed");
        assert_eq!(inbox.pop().expect("whole").expect("there").bytes, &b"bc"[..]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_arrive() {
        let mut inbox = Inbox::new(10);
        assert_eq!(inbox.push(Bytes::from_static(&[0, 0, 0, 0, 11])), Err(Refusal::TooLarge));
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        assert_eq!(Inbox::new(10).push(Bytes::from_static(&[2])), Err(Refusal::Malformed));
        for bytes in [&b""[..], b"\0", b"\0\0\0\0\x01", b"\0\0\0\0\x01ab"] {
            let mut inbox = Inbox::new(10);
            inbox.push(Bytes::from_static(bytes)).expect("allowed so far");
            assert_eq!(inbox.only(), Err(Refusal::Malformed));
        }
    }

    #[test]
    fn what_is_not_whole_is_held_against_the_budget() {
        let process = Budget::new(8);
        let account = Account::new(100, process.clone());
        let mut inbox = Inbox::new(10);
        inbox.push(Bytes::from_static(b"\0\0\0\0\x09abc")).expect("allowed");
        inbox.hold(&account).expect("room");
        assert_eq!(process.held(), 8);
        inbox.push(Bytes::from_static(b"d")).expect("allowed");
        assert_eq!(inbox.hold(&account), Err(Refusal::NoRoom));
        drop(inbox);
        assert_eq!(process.held(), 0);
    }

    #[test]
    fn timeouts_have_a_unit() {
        assert_eq!(timeout_s(b"2S"), Some(2.0));
        assert_eq!(timeout_s(b"1H"), Some(3600.0));
        assert_eq!(timeout_s(b"250m"), Some(0.25));
        for value in [&b""[..], b"S", b"1", b"123456789S", b"-1S", b"1s", b"1.5S"] {
            assert_eq!(timeout_s(value), None);
        }
    }
}
