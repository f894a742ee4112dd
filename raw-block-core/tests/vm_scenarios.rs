//! The drives of the virtual machine are what their scenarios say.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::os::unix::fs::FileTypeExt;

use raw_block_core::conformance::fixture::NvmeNamespace;

/// A number in sysfs, of the block device of namespace `nsid`.
fn number(namespace: &NvmeNamespace, attribute: &str) -> u64 {
    let name = namespace.block().file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(format!("/sys/block/{name}/{attribute}")).unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn each_scenario_is_there_with_its_blocks_and_limits() {
    // Bytes in a block, of metadata beside it, and KiB in a transfer.
    let scenarios = [
        ("plain-512", 1, 512, 0, 512),
        ("plain-4096", 1, 4096, 0, 512),
        ("small-mdts", 1, 512, 0, 64),
        ("two-namespaces", 1, 512, 0, 512),
        ("two-namespaces", 2, 4096, 0, 512),
        ("metadata", 1, 512, 8, 512),
        ("mapped", 1, 512, 0, 512),
        ("mapped", 2, 512, 0, 512),
        ("faulty", 1, 512, 0, 512),
        ("fdp", 1, 4096, 0, 512),
    ];
    for (scenario, nsid, block, metadata, most) in scenarios {
        let namespace = match NvmeNamespace::find(scenario, nsid) {
            Ok(namespace) => namespace,
            Err(skipped) => return skipped.tell(),
        };
        assert_eq!(number(&namespace, "nsid"), nsid.into(), "{scenario}");
        assert_eq!(number(&namespace, "queue/logical_block_size"), block, "{scenario}");
        assert_eq!(number(&namespace, "metadata_bytes"), metadata, "{scenario}");
        assert_eq!(number(&namespace, "queue/max_hw_sectors_kb"), most, "{scenario}");
        let kind = |path| fs::metadata(path).unwrap().file_type();
        assert!(kind(namespace.block()).is_block_device(), "{scenario}");
        assert!(kind(namespace.generic()).is_char_device(), "{scenario}");
    }
}
