//! The Merkle tree of RFC 6962, section 2.1, with SHA-256: grown leaf by leaf, its root at any time.
//!
//! Only the roots of the full subtrees along the right edge are kept, at most one per power of two,
//! so a tree of any size costs a few hundred bytes and an append a few hashes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};

/// A SHA-256 hash; shown in base64, as checkpoints write it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

/// The root of a tree without leaves: the hash of nothing.
pub const EMPTY_ROOT: Hash = Hash([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Keeps a leaf from being passed off as a node, and a node as a leaf.
const LEAF: u8 = 0;
const NODE: u8 = 1;

/// The hash of a record as a leaf.
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    sha256(&[&[LEAF], record])
}

fn node_hash(left: Hash, right: Hash) -> Hash {
    sha256(&[&[NODE], &left.0, &right.0])
}

pub(super) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Hash(hash)
}

/// A tree that grows.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    size: u64,
    /// Roots of the full subtrees, largest first: one for each 1 in the size's binary digits.
    edge: Vec<Hash>,
}

impl Tree {
    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut root = leaf;
        // Each trailing 1 of the old size is a full subtree that the new one completes.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.edge.pop() {
                root = node_hash(left, root);
            }
        }
        self.edge.push(root);
        self.size += 1;
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut from_the_right = self.edge.iter().rev().copied();
        match from_the_right.next() {
            None => EMPTY_ROOT,
            Some(last) => from_the_right.fold(last, |right, left| node_hash(left, right)),
        }
    }
}

impl Hash {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
