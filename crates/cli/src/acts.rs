//! The command that begins an act of custody: a single owner does it, of several one proposes it.

/// How acts begin in a vault.
pub struct Acts {
    alone: bool,
    store: String,
}

impl Acts {
    /// `store`: as it is typed, with the options that it needs.
    pub fn of(quorum: u32, store: impl Into<String>) -> Self {
        Self { alone: quorum == 1, store: store.into() }
    }

    /// Whether nobody else has to agree.
    pub fn alone(&self) -> bool {
        self.alone
    }

    /// `rest`: what follows the act's name.
    pub fn command(&self, act: &str, rest: &str) -> String {
        let (store, gap) = (&self.store, if rest.is_empty() { "" } else { " " });
        match self.alone {
            true => format!("runvault custody {act} {store}{gap}{rest}"),
            false => format!("runvault custody propose {store} {act}{gap}{rest} --out REQ"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_owners_propose_what_one_does() {
        assert_eq!(Acts::of(1, "'a b'").command("rotate", ""), "runvault custody rotate 'a b'");
        assert_eq!(
            Acts::of(2, "store").command("revoke", "RUN lab"),
            "runvault custody propose store revoke RUN lab --out REQ"
        );
    }
}
