//! Every crash point, and where a member is crashed at it.

use super::scenes::Scene::{
    self, Adding, Alone, Behind, Discovering, Founding, Joining, Leaving, Promoting, Recovering, Removing,
    StandingBy, Stopping, Writing,
};
use super::scenes::Whose::{Another, Leader};

/// In the order in which one process comes to them, where a scene has several for the same member.
pub const POINTS: &[(&str, &[Scene])] = &[
    // Persisting: small files, and the log.
    ("sealed.written", &[Founding, Writing(Leader), Writing(Another)]),
    ("sealed.renamed", &[Founding, Writing(Leader), Writing(Another)]),
    ("write.sent", &[Writing(Leader), Writing(Another)]),
    ("log.writing", &[Writing(Leader), Writing(Another)]),
    ("log.written", &[Writing(Leader), Writing(Another)]),
    ("log.noted", &[Writing(Leader), Writing(Another)]),
    // A checkpoint.
    ("checkpoint.begun", &[Writing(Leader), Writing(Another)]),
    ("checkpoint.written", &[Writing(Leader), Writing(Another)]),
    ("checkpoint.sealed", &[Writing(Leader), Writing(Another)]),
    ("checkpoint.renamed", &[Writing(Leader), Writing(Another)]),
    ("checkpoint.durable", &[Writing(Leader), Writing(Another)]),
    ("checkpoint.discarding", &[Writing(Leader), Writing(Another)]),
    ("checkpoint.done", &[Writing(Leader), Writing(Another)]),
    // Compaction.
    ("compact.begun", &[Writing(Leader), Writing(Another)]),
    ("compact.written", &[Writing(Leader), Writing(Another)]),
    ("compact.done", &[Writing(Leader), Writing(Another)]),
    // Founding and joining.
    ("join.found", &[Joining]),
    ("discover.registered", &[Discovering]),
    ("discover.found", &[Discovering]),
    ("stand-by.asked", &[StandingBy]),
    ("begin.noted", &[Founding, Joining, Discovering, StandingBy]),
    ("begin.checkpointed", &[Founding, Joining, Discovering, StandingBy]),
    ("begin.reset", &[Founding, Joining, Discovering, StandingBy]),
    ("begin.identified", &[Founding, Joining, Discovering, StandingBy]),
    // A snapshot, sent, received and installed.
    ("snapshot.begun", &[Behind(Leader)]),
    ("snapshot.sending", &[Behind(Leader)]),
    ("snapshot.sent", &[Behind(Leader)]),
    ("snapshot.receiving", &[Behind(Another), Joining]),
    ("snapshot.received", &[Behind(Another), Joining]),
    ("install.checkpointed", &[Behind(Another), Joining]),
    ("install.reset", &[Behind(Another)]),
    ("install.done", &[Behind(Another)]),
    ("recover.resetting", &[Recovering]),
    ("recover.reset", &[Recovering]),
    // Changes of membership, where they are asked for and where they are applied.
    ("change.asked", &[Adding(Leader), Adding(Another), Removing(Leader), Removing(Another)]),
    ("member.added", &[Adding(Leader), Adding(Another)]),
    ("member.promoted", &[Promoting(Leader), Promoting(Another)]),
    ("member.removed", &[Removing(Leader), Removing(Another)]),
    ("leave.noticed", &[Leaving(Leader), Leaving(Another)]),
    // The ends.
    ("stop.handing-over", &[Stopping]),
    ("force.checkpointed", &[Alone]),
];

/// The points of a scene.
pub fn points(scene: Scene) -> impl Iterator<Item = &'static str> {
    POINTS.iter().filter(move |(_, scenes)| scenes.contains(&scene)).map(|(point, _)| *point)
}
