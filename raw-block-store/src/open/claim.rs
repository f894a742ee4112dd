//! One store per device.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raw_block_core::backend::IoBackend;

use crate::Error;

/// The backends that have a store in this process, by address: while a claim is held, its backend
/// is alive and nothing else has the address.
static CLAIMED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// The right to the store on a backend. The backend keeps other processes out, this keeps a second
/// store of the same process out.
pub(crate) struct Claim {
    address: usize,
    /// Keeps the address taken.
    _backend: Arc<dyn IoBackend>,
}

impl Claim {
    pub(crate) fn take(backend: &Arc<dyn IoBackend>) -> Result<Self, Error> {
        let address = Arc::as_ptr(backend).cast::<()>() as usize;
        if !claimed().insert(address) {
            return Err(Error::Busy { device: backend.name().to_owned() });
        }
        Ok(Self { address, _backend: Arc::clone(backend) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        claimed().remove(&self.address);
    }
}

fn claimed() -> MutexGuard<'static, BTreeSet<usize>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}
