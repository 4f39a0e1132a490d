//! The command line of System Agent.

fn main() {}
