//! Positions: u32 1, f32 1.0, u32 number of clusters, then two f32 (x, y) a cluster, in pixels.

use super::bcl::count;

/// A file of these positions, given as read names show them: `round(10 x + 1000)`.
#[must_use]
pub fn encode(positions: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = 1u32.to_le_bytes().to_vec();
    bytes.extend(1f32.to_le_bytes());
    bytes.extend(count(positions.len()).to_le_bytes());
    for (x, y) in positions {
        bytes.extend(pixels(*x).to_le_bytes());
        bytes.extend(pixels(*y).to_le_bytes());
    }
    bytes
}

fn pixels(shown: u32) -> f32 {
    ((f64::from(shown) - 1000.0) / 10.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let bytes = encode(&[(1005, 1000)]);
        assert_eq!(bytes[..12], [1, 0, 0, 0, 0, 0, 0x80, 0x3f, 1, 0, 0, 0]);
        assert_eq!(bytes[12..], [0, 0, 0, 0x3f, 0, 0, 0, 0]);
    }

    #[test]
    fn positions_are_shown_as_they_were_meant() {
        // As picard computes it, in single precision.
        for shown in 1000..90_000 {
            assert_eq!((pixels(shown) * 10.0 + 1000.0 + 0.5).floor() as u32, shown);
        }
    }
}
