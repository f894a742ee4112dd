//! Foreign code that may panic: backends, wakers, and the owners of memory.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `act`. A panic is logged, and `None` returned.
pub(super) fn logged<T>(what: &str, act: impl FnOnce() -> T) -> Option<T> {
    // Nothing of this crate is changed while foreign code runs.
    let called = catch_unwind(AssertUnwindSafe(act));
    called
        .map_err(|panic| tracing::error!(what, panic = message(&*panic), "foreign code panicked"))
        .ok()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
