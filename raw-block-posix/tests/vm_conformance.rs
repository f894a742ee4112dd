//! The conformance suite on the block devices of NVMe namespaces, in the virtual machine.

use std::sync::Arc;

use raw_block_core::conformance::{Skipped, Subject};
use raw_block_core::{Direct, conformance_suite};
use raw_block_fixtures::NvmeNamespace;
use raw_block_posix::{PosixBackend, PosixOptions};

fn namespace(scenario: &str) -> Result<Subject, Skipped> {
    let namespace = NvmeNamespace::find(scenario, 1)?;
    let options = PosixOptions::new().direct(Direct::Required);
    let backend =
        PosixBackend::open(namespace.block(), &options).unwrap_or_else(|error| panic!("{error}"));
    Ok(Subject::new(Arc::new(backend)))
}

conformance_suite!(plain_512, || namespace("plain-512"));
conformance_suite!(plain_4096, || namespace("plain-4096"));
