//! Generated protobuf of belljar.v1 and its conversion to and from the domain
