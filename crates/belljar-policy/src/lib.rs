//! The pure admission decision: specification, identity and limits in, decision with reasons out
