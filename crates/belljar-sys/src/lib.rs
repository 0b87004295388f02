//! Every unsafe line and raw system call of Belljar, behind safe interfaces that take and give file
//! descriptors. No policy lives here: what to mount, allow or limit is decided by the callers.

pub mod seqpacket;
