//! A whole image: opened, read, changed, closed and opened again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::script::Script;

fuzz_target!(|input: &[u8]| {
    if let Some(script) = Script::new(input) {
        script.run();
    }
});
