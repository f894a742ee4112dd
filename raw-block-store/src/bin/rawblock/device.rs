//! Opening devices and stores.

use std::sync::Arc;

use anyhow::Result;
use raw_block_core::Direct;
use raw_block_core::backend::IoBackend;
use raw_block_store::{Engine, OpenOptions, Store, open_backend, open_backend_read_only};

use crate::arguments::{Device, EngineName, Opening};
use crate::destination::check_stdout;
use crate::output::shown;

impl Device {
    /// The device, for a command that changes it.
    pub(crate) fn open(&self) -> Result<Arc<dyn IoBackend>> {
        check_stdout(&self.path)?;
        Ok(open_backend(&self.path, self.engine(), Direct::Preferred)?)
    }

    /// The device, for a command that only reads.
    pub(crate) fn look(&self) -> Result<Arc<dyn IoBackend>> {
        check_stdout(&self.path)?;
        Ok(open_backend_read_only(&self.path, self.engine(), Direct::Preferred)?)
    }

    /// The store, for a command that changes it.
    pub(crate) fn open_store(&self, opening: &Opening) -> Result<Store> {
        Ok(Store::open_with(self.open()?, &options(opening.accept_older_states))?)
    }

    /// The store, for a command that only reads.
    pub(crate) fn look_into_store(&self, opening: &Opening) -> Result<Store> {
        Ok(Store::open_read_only(self.look()?, &options(opening.accept_older_states))?)
    }

    fn engine(&self) -> Engine {
        match self.engine {
            EngineName::Auto => Engine::Auto,
            EngineName::Posix => Engine::Posix,
            EngineName::Uring => Engine::Uring,
            EngineName::Nvme => Engine::Nvme,
        }
    }
}

/// How this tool opens a store.
pub(crate) fn options(accept_older_states: bool) -> OpenOptions {
    OpenOptions::default()
        .accept_older_states(accept_older_states)
        // One command changes too little for a background thread.
        .background(false)
        .recovery_progress(shown("recovering"))
}
