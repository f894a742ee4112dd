//! Everything that calls and threads share.

mod index;
