//! System Agent.
