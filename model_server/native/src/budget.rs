//! How many bytes connections hold: of messages that are not whole yet, and of answers that are not sent yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};

/// What all connections of a process may hold together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// Allow `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// What one connection holds, within the process' budget.
#[derive(Debug)]
pub struct Account {
    limit: usize,
    held: AtomicUsize,
    process: Arc<Budget>,
}

impl Account {
    /// Allow `limit` bytes of `process`' budget.
    #[must_use]
    pub fn new(limit: usize, process: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0), process })
    }

    /// Take `bytes` until the claim is dropped; None if there is no room for them.
    #[must_use]
    pub fn claim(self: &Arc<Self>, bytes: usize) -> Option<Claim> {
        let mut claim = Claim { account: self.clone(), bytes: 0 };
        claim.grow(bytes).then_some(claim)
    }
}

/// Bytes taken from an account, given back when dropped.
#[derive(Debug)]
pub struct Claim {
    account: Arc<Account>,
    bytes: usize,
}

impl Claim {
    /// Bytes taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Take `bytes` more; false, and nothing is taken, if there is no room for them.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let (account, process) = (&self.account, &self.account.process);
        if account.held.load(Ordering::Relaxed) + bytes > account.limit || process.held() + bytes > process.limit {
            return false;
        }
        account.held.fetch_add(bytes, Ordering::Relaxed);
        process.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.account.process.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A DATA frame's payload on its way out; what it claims is given back once it is sent, or its stream is reset.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Bytes,
    _claim: Option<Claim>,
}

impl Outgoing {
    /// Send `bytes`, for which `claim` was taken.
    #[must_use]
    pub fn new(bytes: Bytes, claim: Option<Claim>) -> Self {
        Self { bytes, _claim: claim }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_given_back_when_it_is_dropped() {
        let process = Budget::new(100);
        let account = Account::new(60, process.clone());
        let first = account.claim(50).expect("there is room");
        assert!(account.claim(11).is_none());
        assert_eq!(process.held(), 50);
        drop(first);
        assert_eq!(process.held(), 0);
        assert!(account.claim(60).is_some());
    }

    #[test]
    fn connections_share_the_budget_of_the_process() {
        let process = Budget::new(100);
        let (one, other) = (Account::new(60, process.clone()), Account::new(60, process));
        let _held = one.claim(60).expect("there is room");
        assert!(other.claim(41).is_none());
        assert!(other.claim(40).is_some());
    }
}
