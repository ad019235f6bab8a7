//! The integration tests, room by room.

mod tokens;
