//! REAPI Directory and Tree as domain types with a canonical encoding; pure
