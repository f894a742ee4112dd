//! Logging damages, of which a device may have one for each object.

/// Damages that are logged one by one.
const LOGGED: usize = 10;

/// Calls `log` for one of the first ten damages: `before` is how many were found before it.
pub(crate) fn log_first(before: usize, log: impl FnOnce()) {
    if before < LOGGED {
        log();
    }
}

/// Logs how many damages `what` found, if there are more than were logged one by one.
pub(crate) fn log_count(findings: usize, device: &str, what: &str) {
    if findings > LOGGED {
        let logged = LOGGED;
        tracing::warn!(device, findings, logged, "{what} found more damages than it logged");
    }
}
