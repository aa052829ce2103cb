//! What is on disk: the raft log (raft-engine), checkpoints of the applied state (sled), the member's identity.
