//! What can go wrong, each in one place of one table.

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $($(#[doc = $doc])* $name,)* }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

faults! {
    KillOne,
    KillLeader,
    /// So many that nothing can go on.
    KillMost,
    KillAll,
    /// Killed again and again while it starts.
    KillStarting,
    PauseOne,
    PauseLeader,
    PauseMost,
    /// Two parts that do not hear of each other.
    Split,
    CutOffLeader,
    /// Two parts, and one member that hears both.
    Bridge,
    /// Each hears its two neighbours.
    Ring,
    /// The leader is heard and hears nothing, or the other way round.
    LeaderOneWay,
    /// Each of some pairs is cut in one direction.
    SomeOneWay,
    /// Packets get lost, of members and clients.
    Loss,
    /// What some members send comes late, in its order.
    Late,
    /// Some of what members send is overtaken by what they sent later, and some comes twice.
    Disorder,
    /// The wall clock of one jumps.
    ClockJump,
    /// Something else takes the disk of one member, to the last byte or nearly.
    DiskFull,
    DiskFullLeader,
    /// So many that nothing more can be written.
    DiskFullMost,
    /// One is gone for good, and a new one takes its place.
    Replace,
}
