//! The conformance suite on the character devices of NVMe namespaces, in the virtual machine.

use std::sync::Arc;

use raw_block_core::conformance::{Skipped, Subject};
use raw_block_core::conformance_suite;
use raw_block_fixtures::NvmeNamespace;
use raw_block_nvme::{NvmeBackend, NvmeOptions};

fn open(scenario: &str, options: &NvmeOptions) -> Result<Subject, Skipped> {
    let namespace = NvmeNamespace::find(scenario, 1)?;
    let backend =
        NvmeBackend::open(namespace.generic(), options).unwrap_or_else(|error| panic!("{error}"));
    Ok(Subject::new(Arc::new(backend)))
}

fn namespace(scenario: &str) -> Result<Subject, Skipped> {
    open(scenario, &NvmeOptions::new())
}

fn polling(scenario: &str) -> Result<Subject, Skipped> {
    open(scenario, &NvmeOptions::new().completion_polling(true))
}

conformance_suite!(plain_512, || namespace("plain-512"));
conformance_suite!(plain_4096, || namespace("plain-4096"));
conformance_suite!(small_mdts, || namespace("small-mdts"));
conformance_suite!(local, || Ok(namespace("plain-512")?.with_local_queues()));
conformance_suite!(polling, || polling("plain-512"));
conformance_suite!(polling_locally, || Ok(polling("plain-4096")?.with_local_queues()));
conformance_suite!(over_tcp, || namespace("over-tcp"));
