//! BCL: u32 number of clusters, then a byte a cluster. Little-endian, like every format here.

/// A BCL of these calls.
#[must_use]
pub fn encode(calls: &[u8]) -> Vec<u8> {
    let mut bytes = count(calls.len()).to_le_bytes().to_vec();
    bytes.extend_from_slice(calls);
    bytes
}

/// A count as these formats store it. A tile has at most 2^24 clusters, a lane under 2^32.
pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn layout() {
        assert_eq!(super::encode(&[0x8b, 0]), [2, 0, 0, 0, 0x8b, 0]);
    }
}
