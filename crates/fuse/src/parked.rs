//! A reply of any kind, as the watchdog holds it.

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use crate::watchdog::Refuse;

/// One of fuser's replies that can be taken back out as what it was.
pub(crate) trait Park: Sized {
    /// Wraps it.
    fn park(self) -> Parked;
    /// `None`: it was another kind, which a slot never returns.
    fn unpark(parked: Parked) -> Option<Self>;
}

macro_rules! kinds {
    ($($kind:ident($reply:ty)),* $(,)?) => {
        /// See the module.
        pub(crate) enum Parked { $($kind($reply),)* Nobody }

        impl Refuse for Parked {
            fn refuse(self, errno: i32) {
                match self {
                    $(Parked::$kind(reply) => reply.error(Errno::from_i32(errno)),)*
                    Parked::Nobody => {}
                }
            }
        }

        $(impl Park for $reply {
            fn park(self) -> Parked {
                Parked::$kind(self)
            }
            fn unpark(parked: Parked) -> Option<Self> {
                match parked {
                    Parked::$kind(reply) => Some(reply),
                    _ => None,
                }
            }
        })*
    };
}

kinds! {
    Attr(ReplyAttr),
    Create(ReplyCreate),
    Data(ReplyData),
    Directory(ReplyDirectory),
    DirectoryPlus(ReplyDirectoryPlus),
    Empty(ReplyEmpty),
    Entry(ReplyEntry),
    Lseek(ReplyLseek),
    Open(ReplyOpen),
    Statfs(ReplyStatfs),
    Write(ReplyWrite),
    Xattr(ReplyXattr),
}

/// FORGET waits for no answer.
pub(crate) struct Nobody;

impl Park for Nobody {
    fn park(self) -> Parked {
        Parked::Nobody
    }
    fn unpark(parked: Parked) -> Option<Self> {
        matches!(parked, Parked::Nobody).then_some(Nobody)
    }
}
