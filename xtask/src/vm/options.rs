//! The arguments of `cargo xtask vm`.

use std::time::Duration;

use clap::Args;

/// The help of this chore.
pub(crate) const ABOUT: &str = "Runs the tests for NVMe in a virtual machine.

Boots a Debian kernel in QEMU, without hardware virtualisation, with several kinds of NVMe controllers. Runs the \
integration tests whose names begin with vm_ in this guest. Then cuts the power of a guest that writes to a store, \
and checks the store in another guest. Writes only to files below target/vm, and does not require root.

Requires these programs, and reports those that are missing:

    apt-get install qemu-system-x86 busybox-static

The kernel is that of the package linux-image-cloud-amd64. If the package is not installed, apt-get downloads it \
once, to target/vm/kernel.

The last line reports the number of tests that passed, failed and were skipped.";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only the tests whose names contain this
    #[arg(long, value_name = "TEXT", value_parser = word)]
    pub(crate) filter: Option<String>,

    /// Run only the test programs whose names, such as raw-block-uring.vm_conformance, contain this
    #[arg(long, value_name = "TEXT")]
    pub(crate) program: Option<String>,

    /// Number of rounds of each fault of the device mapper, each with other changes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Maximum time of a guest, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1200", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Maximum time of a test program, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub(crate) test_timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a positive whole number of seconds".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// It is passed on the command line of a kernel, and through a shell.
fn word(text: &str) -> Result<String, String> {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    if !text.is_empty() && text.bytes().all(harmless) {
        Ok(text.to_owned())
    } else {
        Err("a part of the name of a test has only letters, digits, _ and :".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_a_shell_would_split_is_refused() {
        assert_eq!(word("plain_512::reaping").unwrap(), "plain_512::reaping");
        for text in ["", "a b", "a;b", "$a", "a\"", "--ignored"] {
            assert!(word(text).is_err(), "{text:?}");
        }
    }
}
