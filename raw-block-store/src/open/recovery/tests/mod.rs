#![allow(clippy::cast_possible_truncation, reason = "sizes in tests are small")]

mod counting;
mod image;
mod losing;

use image::{BLOCK, Image};

use super::ShutdownState;
use crate::state::index::Place;

const ONE: &[u8] = &[1; BLOCK];
const TWO: &[u8] = &[2; 2 * BLOCK];
