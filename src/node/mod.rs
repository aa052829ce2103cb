//! The only place where the parts of a member meet.

pub mod config;
pub mod ids;
