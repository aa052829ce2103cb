//! Members to members on the peer port (tonic).
