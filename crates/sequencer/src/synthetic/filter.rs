//! Filter files, version 3: four zero bytes, u32 3, u32 number of clusters, then a byte a cluster, 1 if it passes.

use super::bcl::count;

/// A filter file of these decisions.
#[must_use]
pub fn encode(passes: &[bool]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(count(passes.len()).to_le_bytes());
    bytes.extend(passes.iter().map(|pass| u8::from(*pass)));
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn layout() {
        assert_eq!(super::encode(&[true, false]), [0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0]);
    }
}
