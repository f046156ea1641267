//! What a file may hold after a crash.

/// The promises made for one file.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// Contents since the last acknowledged sync, that one's first: each owed byte is as in one.
    versions: Vec<Vec<u8>>,
    /// Bytes that must be there.
    owed: usize,
}

impl Expect {
    /// What the application sees now.
    pub fn now(&self) -> &[u8] {
        self.versions.last().map_or(&[], Vec::as_slice)
    }

    /// A change begins: its bytes may be there, and what it cuts off is not owed any more.
    pub fn changing(&mut self, to: Vec<u8>) {
        if self.versions.is_empty() {
            self.versions.push(Vec::new());
        }
        self.owed = self.owed.min(to.len());
        self.versions.push(to);
    }

    /// A sync was acknowledged.
    pub fn synced(&mut self) {
        let now = self.now().to_vec();
        self.owed = now.len();
        self.versions = vec![now];
    }

    /// A process started anew and found this: what is not owed counts as it was found.
    pub fn found(&mut self, bytes: Vec<u8>) {
        self.versions.push(bytes);
    }

    /// How many bytes must be there.
    pub fn owed(&self) -> usize {
        self.owed
    }

    /// Names the first promise that `bytes` break.
    pub fn broken_by(&self, bytes: &[u8]) -> Option<String> {
        if bytes.len() < self.owed {
            return Some(format!("{} bytes of {} acknowledged", bytes.len(), self.owed));
        }
        let allowed = |p: usize, byte: u8| {
            self.versions.iter().any(|version| version.get(p).copied().unwrap_or(0) == byte)
        };
        let wrong = bytes.iter().take(self.owed).enumerate().find(|(p, byte)| !allowed(*p, **byte));
        wrong.map(|(p, byte)| format!("byte {p} is {byte}, which it never was since the sync"))
    }
}
