//! Mutations of the protocol, to see that the crash tests notice them. Only with the feature `faults`, and
//! then only one at a time, when asked for.

use std::sync::atomic::{AtomicU8, Ordering};

/// Declares the mutants and the list of all of them.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule of the protocol that can be switched off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant {
            /// None. Not one of [`ALL`](Self::ALL).
            None,
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

mutants! {
    /// A get believes a payload whose checksum differs.
    PayloadUnchecked,
    /// Of two puts of a key the one that completes last wins.
    LastToCompleteWins,
    /// The index forgets at once that a key was deleted.
    GoneForgotten,
    /// A delete that completes late removes a newer put.
    DeleteRemovesNewerPut,
    /// A copy replaces whatever the index shows of its key.
    CopyReplacesAnything,
}

impl Mutant {
    /// Switches this mutant on for the whole process, and any other off.
    pub fn switch_on(self) {
        ACTIVE.store(self as u8, Ordering::SeqCst);
    }

    /// Switches every mutant off.
    pub fn switch_off() {
        ACTIVE.store(Self::None as u8, Ordering::SeqCst);
    }

    /// Whether this one is on.
    pub(crate) fn is_on(self) -> bool {
        cfg!(feature = "faults") && ACTIVE.load(Ordering::Relaxed) == self as u8
    }
}

static ACTIVE: AtomicU8 = AtomicU8::new(Mutant::None as u8);
