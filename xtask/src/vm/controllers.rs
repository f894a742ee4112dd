//! The NVMe controllers of the guest. Each is a scenario. Its serial number is the name of the
//! scenario, by which tests find it (`raw_block_fixtures::NvmeNamespace`).

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::qemu::Version;

/// Length of a namespace in bytes. Its file is sparse.
const IMAGE_LEN: u64 = 64 << 20;

/// The first version of QEMU with flexible data placement.
const FIRST_WITH_FDP: Version = Version { major: 8, minor: 0 };

/// Byte offsets at which transfers to the namespace of `faulty` fail with a media error.
const READ_FAULT: u64 = 16 << 20;
const WRITE_FAULT: u64 = 32 << 20;

/// A controller and its namespaces, in QEMU's terms.
struct Controller {
    serial: &'static str,
    /// Additional properties of the device `nvme`.
    options: &'static str,
    /// Additional properties of each device `nvme-ns`.
    namespaces: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// In a subsystem with flexible data placement.
    Fdp,
    /// On a drive that fails at `READ_FAULT` and `WRITE_FAULT`.
    Faulty,
}

const fn plain(
    serial: &'static str,
    options: &'static str,
    namespaces: &'static [&'static str],
) -> Controller {
    Controller { serial, options, namespaces, kind: Kind::Plain }
}

/// MDTS is a power of two in units of 4 KiB: 7, QEMU's default, is 512 KiB, 4 is 64 KiB.
const CONTROLLERS: [Controller; 10] = [
    plain("plain-512", "", &["logical_block_size=512"]),
    plain("plain-4096", "", &["logical_block_size=4096,physical_block_size=4096"]),
    plain("small-mdts", ",mdts=4", &["logical_block_size=512"]),
    plain(
        "two-namespaces",
        "",
        &["logical_block_size=512", "logical_block_size=4096,physical_block_size=4096"],
    ),
    plain("metadata", "", &["logical_block_size=512,ms=8"]),
    // A test removes it.
    plain("vanishing", "", &["logical_block_size=512"]),
    // A device for the device mapper, and one for the log of its writes.
    plain("mapped", "", &["logical_block_size=512", "logical_block_size=512"]),
    // The guest exports it, and connects to it as `over-tcp`.
    plain("exported", "", &["logical_block_size=512"]),
    Controller {
        serial: "faulty",
        options: "",
        namespaces: &["logical_block_size=512"],
        kind: Kind::Faulty,
    },
    Controller {
        serial: "fdp",
        options: ",subsys=fdp-subsystem",
        namespaces: &["logical_block_size=4096,physical_block_size=4096,fdp.ruhs=0;1;2;3"],
        kind: Kind::Fdp,
    },
];

/// The arguments of QEMU, and the variables of the guest.
pub(crate) struct Controllers {
    /// Arguments of QEMU.
    pub(crate) arguments: Vec<String>,
    /// Variables for the tests.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Scenarios that this QEMU does not support: `name: reason`.
    pub(crate) missing: Vec<String>,
}

/// Creates every controller that this QEMU supports, on new images in `directory`.
pub(crate) fn all(version: Version, directory: &Path) -> Result<Controllers> {
    let mut arguments = Vec::new();
    let mut missing = Vec::new();
    for controller in CONTROLLERS {
        if controller.kind == Kind::Fdp {
            if version < FIRST_WITH_FDP {
                missing.push(format!("fdp: QEMU {version} lacks it, {FIRST_WITH_FDP} has it"));
                continue;
            }
            // Units of 1 MiB, which a test can fill.
            let subsystem = "nvme-subsys,id=fdp-subsystem,fdp=on,fdp.nruh=4,fdp.nrg=1,fdp.runs=1M";
            device(&mut arguments, subsystem.to_owned());
        }
        let Controller { serial, options, .. } = controller;
        device(&mut arguments, format!("nvme,id={serial},serial={serial}{options}"));
        for (number, options) in (1..).zip(controller.namespaces) {
            let drive = format!("{serial}-{number}");
            let image = new_image(directory, &drive)?;
            arguments.extend(["-blockdev".to_owned(), blockdev(&drive, &image, controller.kind)]);
            device(
                &mut arguments,
                format!("nvme-ns,bus={serial},nsid={number},drive={drive},{options}"),
            );
        }
    }
    let mut variables = vec![
        ("RAW_BLOCK_VM_READ_FAULT", READ_FAULT.to_string()),
        ("RAW_BLOCK_VM_WRITE_FAULT", WRITE_FAULT.to_string()),
    ];
    if !missing.is_empty() {
        variables.push(("RAW_BLOCK_VM_WITHOUT", missing.join("; ")));
    }
    Ok(Controllers { arguments, variables, missing })
}

fn device(arguments: &mut Vec<String>, device: String) {
    arguments.extend(["-device".to_owned(), device]);
}

/// The block device below a namespace. Writes end in the page cache of the host.
fn blockdev(name: &str, image: &Path, kind: Kind) -> String {
    let file = format!("driver=file,filename={},discard=unmap", escaped(image));
    let prefixed = |prefix: &str| {
        file.replace("driver=", &format!("{prefix}driver=")).replace(",", &format!(",{prefix}"))
    };
    match kind {
        Kind::Plain | Kind::Fdp => {
            format!("driver=raw,node-name={name},discard=unmap,{}", prefixed("file."))
        }
        Kind::Faulty => {
            let fault = |number, direction, offset| {
                format!(
                    "inject-error.{number}.event=none,inject-error.{number}.iotype={direction},\
                     inject-error.{number}.sector={},inject-error.{number}.errno=5",
                    offset / 512
                )
            };
            format!(
                "driver=blkdebug,node-name={name},{},{},{}",
                fault(0, "read", READ_FAULT),
                fault(1, "write", WRITE_FAULT),
                prefixed("image."),
            )
        }
    }
}

/// Creates an empty image, a sparse file.
pub(crate) fn new_image(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(format!("{name}.img"));
    let make = || {
        let file = File::create(&path)?;
        file.set_len(IMAGE_LEN)
    };
    make().with_context(|| format!("cannot create the image {}", path.display()))?;
    Ok(path)
}

/// A path as a value in a list of options, where a comma is doubled.
pub(crate) fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_qemu_lacks_one_scenario_and_says_so_to_the_tests() {
        let directory = tempfile::tempdir().unwrap();
        let with = |major| all(Version { major, minor: 2 }, directory.path()).unwrap();
        let (old, new) = (with(7), with(8));
        assert_eq!(old.missing, ["fdp: QEMU 7.2 lacks it, 8.0 has it"]);
        assert!(old.variables.contains(&("RAW_BLOCK_VM_WITHOUT", old.missing[0].clone())));
        assert!(new.missing.is_empty());
        let count = |controllers: &Controllers| {
            controllers.arguments.iter().filter(|argument| argument.contains("fdp")).count()
        };
        // The subsystem, the controller, the drive and the namespace.
        assert_eq!((count(&old), count(&new)), (0, 4));
    }
}
