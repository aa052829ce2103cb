//! The ring of past events.
/// How much history is kept; whichever bound is reached first cuts the oldest event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// At most this many events.
    pub events: usize,
    /// At most about this many bytes of keys and values in events.
    pub bytes: usize,
}
/// The events of the last indexes, one for each, without a gap.
#[derive(Clone, Debug)]
pub struct EventHistory {}
