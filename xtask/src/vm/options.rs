//! What the chore is asked for.

use std::time::Duration;

use clap::Args;

/// The help of this chore.
pub(crate) const ABOUT: &str = "Runs the tests for NVMe in a virtual machine.

Boots a Debian kernel in QEMU, under plain emulation, with NVMe controllers that differ, and runs there the \
integration tests whose names begin with vm_. Then it cuts the power of a guest that writes to a store, and \
checks in another one what is left. Nothing of this machine is touched but files below target/vm, and no \
right of root is needed.

It takes these programs, and says which are missing:

    apt-get install qemu-system-x86 busybox-static

The kernel is that of the package linux-image-cloud-amd64, installed or not: if it is not, it is downloaded \
with apt-get and unpacked below target/vm/kernel, once.

The last line tells how many tests passed, failed and were skipped.";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Runs only the tests whose names contain this.
    #[arg(long, value_name = "TEXT", value_parser = word)]
    pub(crate) filter: Option<String>,

    /// Runs only the test programs whose names, such as raw-block-uring.vm_conformance, contain this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) program: Option<String>,

    /// How many rounds the tests over the device mapper do of each fault, each with other changes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// How long one guest may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1200", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// How long one test program may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub(crate) test_timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a whole number of seconds above 0".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// It travels on the command line of a kernel, and through a shell.
fn word(text: &str) -> Result<String, String> {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    if !text.is_empty() && text.bytes().all(harmless) {
        Ok(text.to_owned())
    } else {
        Err("not a part of the name of a test: letters, digits, _ and :".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_a_shell_would_take_apart_is_refused() {
        assert_eq!(word("plain_512::reaping").unwrap(), "plain_512::reaping");
        for text in ["", "a b", "a;b", "$a", "a\"", "--ignored"] {
            assert!(word(text).is_err(), "{text:?}");
        }
    }
}
