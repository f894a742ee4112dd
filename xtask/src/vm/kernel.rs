//! The kernel of the guest: Debian's for virtual machines, which has NVMe and virtio built in.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The package that depends on the newest such kernel.
pub(crate) const PACKAGE: &str = "linux-image-cloud-amd64";
const SUFFIX: &str = "-cloud-amd64";

/// Modules for a namespace over TCP and for the device mapper, each after its dependencies.
const MODULES: [&str; 8] = [
    "fs/configfs/configfs.ko",
    "drivers/nvme/host/nvme-fabrics.ko",
    "drivers/nvme/host/nvme-tcp.ko",
    "drivers/nvme/target/nvmet.ko",
    "drivers/nvme/target/nvmet-tcp.ko",
    "drivers/md/dm-mod.ko",
    "drivers/md/dm-flakey.ko",
    "drivers/md/dm-log-writes.ko",
];

/// The files of a kernel and its modules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// In the order in which they are loaded.
    pub(crate) modules: Vec<PathBuf>,
}

/// Finds the newest installed kernel, else the one that was downloaded to `directory`, else
/// downloads one.
pub(crate) fn find(directory: &Path) -> Result<Kernel> {
    if let Some(kernel) = below(Path::new("/"))? {
        return Ok(kernel);
    }
    let downloaded = directory.join("kernel");
    if let Some(kernel) = below(&downloaded)? {
        return Ok(kernel);
    }
    download(&downloaded)?;
    below(&downloaded)?.context("the downloaded package has no kernel")
}

/// Finds the newest kernel below this root of a file system.
fn below(root: &Path) -> Result<Option<Kernel>> {
    let Ok(files) = fs::read_dir(root.join("boot")) else { return Ok(None) };
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let releases = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
    let newest =
        releases.filter(|release| release.ends_with(SUFFIX)).max_by_key(|name| numbers(name));
    let Some(release) = newest else { return Ok(None) };
    let tree = root.join("lib/modules").join(&release).join("kernel");
    // Later Debian versions compress them.
    let find = |module: &&str| {
        let path = |suffix| tree.join(format!("{module}{suffix}"));
        let found = ["", ".xz"].map(path).into_iter().find(|path| path.exists());
        found.with_context(|| format!("{} is missing", path("").display()))
    };
    let modules = MODULES.iter().map(find).collect::<Result<_>>()?;
    Ok(Some(Kernel { image: root.join("boot").join(format!("vmlinuz-{release}")), modules }))
}

/// Downloads the newest package with a kernel, and unpacks it below `root`. Nothing is installed.
fn download(root: &Path) -> Result<()> {
    let output = Command::new("apt-cache")
        .args(["pkgnames", "linux-image-"])
        .stderr(Stdio::null())
        .output()
        .context("no kernel is installed, and apt-cache does not run")?;
    let names = String::from_utf8_lossy(&output.stdout);
    let is_kernel = |name: &&str| {
        let release = name.strip_prefix("linux-image-").and_then(|name| name.strip_suffix(SUFFIX));
        release.is_some_and(|release| release.starts_with(|first: char| first.is_ascii_digit()))
    };
    let mut packages: Vec<_> = names.lines().filter(is_kernel).collect();
    packages.sort_by_key(|name| Reverse(numbers(name)));
    let download = root.with_extension("download");
    fs::create_dir_all(&download).with_context(|| format!("cannot make {}", download.display()))?;
    // The list also has names without a file.
    let succeeds = |command: &mut Command| {
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let found = packages.iter().find(|package| {
        succeeds(Command::new("apt-get").current_dir(&download).args(["download", package]))
    });
    let Some(package) = found else {
        bail!("no kernel is installed, and apt-get finds no package linux-image-*{SUFFIX}");
    };
    let archive = fs::read_dir(&download)
        .with_context(|| format!("cannot list {}", download.display()))?
        .flatten()
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get has not stored {package} in the current directory"))?;
    let unpacked = download.join("unpacked");
    if !succeeds(Command::new("dpkg").arg("-x").arg(&archive).arg(&unpacked)) {
        bail!("dpkg cannot unpack {}", archive.display());
    }
    // The directory appears when it is complete.
    fs::rename(&unpacked, root).with_context(|| format!("cannot make {}", root.display()))?;
    fs::remove_dir_all(&download).with_context(|| format!("cannot remove {}", download.display()))
}

/// The numbers in the name of a release. The newest release has the largest.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, names: impl IntoIterator<Item = String>) {
        for name in names {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn the_newest_kernel_counts_and_others_do_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(below(root.path()).unwrap(), None);
        let newest = "6.12.9+deb12-cloud-amd64";
        for release in ["6.1.0-45-cloud-amd64", "6.12.10-amd64", newest, "6.9.7-cloud-amd64"] {
            touch(root.path(), [format!("boot/vmlinuz-{release}")]);
        }
        let modules = MODULES.map(|module| format!("lib/modules/{newest}/kernel/{module}.xz"));
        touch(root.path(), modules.clone());
        let expected = Kernel {
            image: root.path().join("boot/vmlinuz-6.12.9+deb12-cloud-amd64"),
            modules: modules.map(|module| root.path().join(module)).into(),
        };
        assert_eq!(below(root.path()).unwrap(), Some(expected));
    }

    #[test]
    fn a_kernel_without_a_module_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), ["boot/vmlinuz-6.1.0-cloud-amd64".to_owned()]);
        let error = below(root.path()).unwrap_err().to_string();
        assert!(error.contains("6.1.0-cloud-amd64/kernel/fs/configfs/configfs.ko"), "{error}");
    }
}
