//! Whether a directory of another machine's may have changed, for the price of its attributes.

use runvault_store::backend::{Stat, Time};

/// A directory's times; `None`: the store did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(Time, Time)>);

impl Stamp {
    pub(crate) fn of(stat: &Option<Stat>) -> Self {
        Self(stat.map(|stat| (stat.mtime, stat.ctime)))
    }
}

/// Those of the last two looks.
#[derive(Debug, Default)]
pub(crate) struct Stamps(Stamp, Stamp);

impl Stamps {
    /// Whether it is to be looked into: its times were others at one of the last two looks. What changes twice within the
    /// grain of a store's clock, before and after a look, is seen by the look after that.
    pub(crate) fn differs(&mut self, stamp: Stamp) -> bool {
        let same = stamp.0.is_some() && self.0 == stamp && self.1 == stamp;
        *self = Self(self.1, stamp);
        !same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_each_change_it_is_looked_into_twice() {
        let at = |sec| Stamp(Some((Time { sec, nsec: 0 }, Time { sec, nsec: 1 })));
        let mut stamps = Stamps::default();
        let mut looks = |stamps_of: [Stamp; 8]| stamps_of.map(|stamp| stamps.differs(stamp));
        let now = looks([at(1), at(1), at(1), at(1), at(2), at(2), at(2), Stamp(None)]);
        assert_eq!(now, [true, true, false, false, true, true, false, true]);
    }
}
