//! Opening the engines.

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

/// Bytes of the memory device, at most.
const MEMORY: u64 = 512 << 20;

/// Opens engines on the target. Only one of them holds it at a time.
pub(super) struct Engines<'a> {
    target: &'a Target,
    /// Stays for the whole run, so that its pages are there.
    memory: Option<Arc<MemoryBackend>>,
}

impl<'a> Engines<'a> {
    /// Tries each of `names`; those that cannot be opened here are left out of the answer, and `say` is
    /// told why.
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
                Err(error) => say(&format!("the engine {} is left out: {error:#}", name.name())),
            }
        }
        Ok((engines, usable))
    }

    pub(super) fn open(&self, name: EngineName) -> Result<Arc<dyn IoBackend>> {
        match (name, &self.memory) {
            (EngineName::Memory, Some(memory)) => Ok(Arc::clone(memory) as Arc<dyn IoBackend>),
            (EngineName::Memory, None) => anyhow::bail!("it was not asked for"),
            (EngineName::Posix, _) => {
                Ok(Arc::new(PosixBackend::open(&self.target.path, &PosixOptions::new())?))
            }
            (EngineName::Uring, _) => {
                Ok(Arc::new(UringBackend::open(&self.target.path, &UringOptions::new())?))
            }
            (EngineName::Nvme, _) => {
                let path = self.target.generic.as_ref();
                let path =
                    path.context("it takes the character device of a namespace, /dev/ngXnY")?;
                Ok(Arc::new(NvmeBackend::open(path, &NvmeOptions::new())?))
            }
        }
    }

    /// What is special about each engine here.
    pub(super) fn describe(&self, names: &[EngineName]) -> Map<String, Value> {
        let describe = |&name: &EngineName| {
            // What cannot be opened any more has nothing special.
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

    /// How much of the engine's device is used, in bytes.
    pub(super) fn span(&self, name: EngineName) -> u64 {
        span(name, self.target.span)
    }
}

/// How much of an engine's device is used, in bytes, if it is `span` of the target.
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
