//! Opens the engines.

use std::sync::Arc;

use anyhow::{Context, Result};
use raw_block_core::backend::IoBackend;
use raw_block_core::{BufferPool, Dispatcher, MemoryBackend, WriteAt};
use raw_block_nvme::{NvmeBackend, NvmeOptions};
use raw_block_posix::{PosixBackend, PosixOptions};
use raw_block_uring::{UringBackend, UringOptions};
use serde_json::{Map, Value, json};

use super::data::SplitMix;
use super::options::EngineName;
use super::target::Target;

/// The maximum size of the memory device, in bytes.
const MEMORY: u64 = 512 << 20;

/// Opens engines on the target. Only one of them has it open at a time.
pub(super) struct Engines<'a> {
    target: &'a Target,
    /// Kept for the whole run, so that its pages stay resident.
    memory: Option<Arc<MemoryBackend>>,
}

impl<'a> Engines<'a> {
    /// Tries each of `names`. Returns those that can be opened here, and passes the reason for each
    /// other one to `say`.
    pub(super) fn new(
        target: &'a Target,
        names: &[EngineName],
        say: impl Fn(&str),
    ) -> Result<(Self, Vec<EngineName>)> {
        let mut engines = Self { target, memory: None };
        if names.contains(&EngineName::Memory) {
            engines.memory = Some(filled_memory(target.span.min(MEMORY))?);
        }
        let mut usable = Vec::new();
        for &name in names {
            match engines.open(name).and_then(|backend| Ok(backend.open_queue(1).map(drop)?)) {
                Ok(()) => usable.push(name),
                Err(error) => say(&format!("the engine {} is skipped: {error:#}", name.name())),
            }
        }
        Ok((engines, usable))
    }

    pub(super) fn open(&self, name: EngineName) -> Result<Arc<dyn IoBackend>> {
        match (name, &self.memory) {
            (EngineName::Memory, Some(memory)) => Ok(Arc::clone(memory) as Arc<dyn IoBackend>),
            (EngineName::Memory, None) => anyhow::bail!("the engine memory is not selected"),
            (EngineName::Posix, _) => {
                Ok(Arc::new(PosixBackend::open(&self.target.path, &PosixOptions::new())?))
            }
            (EngineName::Uring, _) => {
                Ok(Arc::new(UringBackend::open(&self.target.path, &UringOptions::new())?))
            }
            (EngineName::Nvme, _) => {
                let path = self.target.generic.as_ref();
                let path = path.context(
                    "the engine nvme requires the character device of a namespace, /dev/ngXnY",
                )?;
                Ok(Arc::new(NvmeBackend::open(path, &NvmeOptions::new())?))
            }
        }
    }

    /// Describes each engine as it is on this machine.
    pub(super) fn describe(&self, names: &[EngineName]) -> Map<String, Value> {
        let describe = |&name: &EngineName| {
            // An engine that cannot be opened any more is described by its error.
            let about = self.about(name).unwrap_or_else(|error| json!(format!("{error:#}")));
            (name.name().to_owned(), about)
        };
        names.iter().map(describe).collect()
    }

    fn about(&self, name: EngineName) -> Result<Value> {
        let path = &self.target.path;
        let mut about = match name {
            EngineName::Memory | EngineName::Nvme => json!({}),
            EngineName::Posix => {
                let backend = PosixBackend::open(path, &PosixOptions::new())?;
                json!({ "threads": backend.threads(), "direct": backend.is_direct() })
            }
            EngineName::Uring => {
                let backend = UringBackend::open(path, &UringOptions::new())?;
                let flags: Vec<_> = backend.granted_flags().names().collect();
                json!({ "setup_flags": flags, "direct": backend.is_direct() })
            }
        };
        let backend = self.open(name)?;
        let registered = BufferPool::new(4096, 1)?.register_with(backend.clone());
        let registered = registered.map_or_else(|error| json!(error.to_string()), |_| json!(true));
        let geometry = backend.geometry();
        about["registered_memory"] = registered;
        about["span_bytes"] = self.span(name).into();
        about["max_transfer"] = geometry.max_transfer.into();
        about["transfer_alignment"] = geometry.transfer_alignment.into();
        Ok(about)
    }

    /// The number of bytes that are used of the engine's device.
    pub(super) fn span(&self, name: EngineName) -> u64 {
        span(name, self.target.span)
    }
}

/// The number of bytes that are used of an engine's device, if `span` of the target is used.
pub(super) fn span(name: EngineName, span: u64) -> u64 {
    match name {
        EngineName::Memory => span.min(MEMORY),
        EngineName::Posix | EngineName::Uring | EngineName::Nvme => span,
    }
}

fn filled_memory(len: u64) -> Result<Arc<MemoryBackend>> {
    let backend = Arc::new(MemoryBackend::new(len)?);
    let device = Dispatcher::new(Arc::clone(&backend) as Arc<dyn IoBackend>)?;
    let mut bytes = vec![0; 1 << 20];
    SplitMix(len).fill(&mut bytes);
    for offset in (0..len).step_by(bytes.len()) {
        let part = usize::try_from(len - offset).map_or(bytes.len(), |left| left.min(bytes.len()));
        device.write_buffers(&[WriteAt::new(offset, &bytes[..part])]).all()?;
    }
    Ok(backend)
}
