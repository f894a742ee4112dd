//! Block I/O by NVMe passthrough. **Not there yet: this crate is empty.**
//!
//! Its place: a backend for the character device of an NVMe namespace (`/dev/ngXnY`), beside
//! [`raw_block_uring`], whose rings it will use with entries of double width, and below
//! [`raw_block_core`], whose traits it will implement. It will ask the controller for its limits, split
//! transfers at them, and turn NVMe status into errors that tell what happened.
//!
//! Until then, open the namespace's block device (`/dev/nvmeXnY`) with [`raw_block_uring`].
