//! Cancel keys of our own: random, as long as the client's protocol allows, compared in constant time.

/// Bytes of a key in protocol 3.2. PostgreSQL's own have as many; longer ones are legal and only
/// cost memory.
const LONG: usize = 32;

/// Bytes of a key in protocol 3.0.
const SHORT: usize = 4;

/// The secret of a cancel key.
#[derive(Clone, Debug)]
pub struct Key {
    bytes: [u8; LONG],
    long: bool,
}

impl Key {
    /// A new one. Protocol 3.2 and later know keys of more than four bytes.
    pub fn new(minor: u16) -> Self {
        Self {
            bytes: rand::random(),
            long: minor >= 2,
        }
    }

    /// What is sent to the client.
    pub fn bytes(&self) -> &[u8] {
        let length = if self.long { LONG } else { SHORT };
        self.bytes.get(..length).unwrap_or_default()
    }

    /// Whether this is it. Takes as long for a wrong key as for the right one.
    pub fn is(&self, secret: &[u8]) -> bool {
        let own = self.bytes();
        let differ = |sum, (a, b): (&u8, &u8)| sum | (a ^ b);
        own.len() == secret.len() && own.iter().zip(secret).fold(0, differ) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_as_long_as_the_protocol_allows_and_fits_whole_or_not_at_all() {
        let (short, long) = (Key::new(0), Key::new(2));
        assert_eq!((short.bytes().len(), long.bytes().len()), (4, 32));
        assert!(short.is(short.bytes()) && long.is(long.bytes()));
        assert!(!long.is(long.bytes().get(..4).expect("32 bytes")));
        let mut wrong = long.bytes().to_vec();
        wrong[31] ^= 1;
        assert!(!long.is(&wrong) && !long.is(&[]));
    }
}
