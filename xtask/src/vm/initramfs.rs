//! The file system of the guest: an archive (cpio, "newc") that the kernel unpacks into memory.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

/// An unfinished archive.
#[derive(Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    inode: u32,
}

impl Initramfs {
    /// Adds an empty directory. Its parent must come first.
    pub(crate) fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, ModeFileType::Directory, 0o755, &[])
    }

    /// Adds an executable file.
    pub(crate) fn file(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        self.entry(name, ModeFileType::Regular, 0o755, contents)
    }

    /// Adds a copy of a file of the host.
    pub(crate) fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(name, &contents)
    }

    /// Returns the complete archive.
    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        trailer(self.bytes).context("cannot complete the initramfs")
    }

    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32, contents: &[u8]) -> Result<()> {
        self.inode += 1;
        let builder = Builder::new(name).ino(self.inode).mode(mode).set_mode_file_type(kind);
        let add = || -> io::Result<()> {
            let len = u32::try_from(contents.len()).map_err(io::Error::other)?;
            let mut writer = builder.write(&mut self.bytes, len);
            io::Write::write_all(&mut writer, contents)?;
            writer.finish().map(drop)
        };
        add().with_context(|| format!("cannot add {name} to the initramfs"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cpio::newc::Reader;

    use super::*;

    #[test]
    fn what_was_added_comes_out_in_order() {
        let mut initramfs = Initramfs::default();
        initramfs.directory("tests").unwrap();
        initramfs.file("tests/one", b"odd").unwrap();
        initramfs.file("init", &[7; 4096]).unwrap();
        let archive = initramfs.finish().unwrap();

        let mut rest = archive.as_slice();
        let mut found = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            let entry = reader.entry();
            found.push((entry.name().to_owned(), entry.mode(), contents));
            rest = reader.finish().unwrap();
        }
        let expected = [
            ("tests".to_owned(), 0o040_755, vec![]),
            ("tests/one".to_owned(), 0o100_755, b"odd".to_vec()),
            ("init".to_owned(), 0o100_755, vec![7; 4096]),
        ];
        assert_eq!(found, expected);
    }
}
