//! A cache in an event loop: one thread serves requests, and waits at one descriptor for all loads
//! and stores in flight.
//!
//! A client asks for documents, some of them often. A document that the cache holds is loaded;
//! another one is made, served, and stored for the next time.
//!
//! Usage: `event_loop [PATH]`. PATH is a file or a block device, whose contents are lost. Without
//! it, a temporary file is used.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use raw_block_store::{
    AlignedBuf, AsyncOptions, AsyncStore, Batch, CompletionQueue, Direct, Engine, EvictionPolicy,
    FormatOptions, OpenOptions, Outcome, OwnedGet, OwnedPut, RequestId, Store, open_backend,
};

const DOCUMENT_BYTES: usize = 64 << 10;
const REQUESTS: u32 = 2000;
const DOCUMENTS: u32 = 200;
/// Requests that are served concurrently.
const CLIENTS: usize = 16;
/// For how long a load may wait, and for how long the device may not answer. Of a drive this would
/// be less; the file of this example may be on a busy disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// The contents of a document, which take long to make.
fn make(document: u32) -> Result<AlignedBuf, Box<dyn Error>> {
    let mut bytes = AlignedBuf::zeroed(DOCUMENT_BYTES)?;
    for (at, chunk) in (0_u32..).zip(bytes.chunks_exact_mut(4)) {
        chunk.copy_from_slice(&document.wrapping_mul(0x9E37_79B9).wrapping_add(at).to_le_bytes());
    }
    Ok(bytes)
}

/// The document that request number `request` asks for: half of the requests ask for a tenth.
fn wanted(request: u32) -> u32 {
    let mixed = request.wrapping_mul(0x85EB_CA6B) >> 7;
    mixed % if request.is_multiple_of(2) { DOCUMENTS / 10 } else { DOCUMENTS }
}

#[derive(Debug, Default)]
struct Summary {
    hits: u32,
    misses: u32,
    stored: u32,
    not_stored: u32,
    wakes: u32,
}

/// The state of the event loop.
struct Server<'a> {
    queue: &'a CompletionQueue,
    /// The document that each load in flight is for.
    loads: HashMap<RequestId, u32>,
    /// Memory of documents that were served, for the next loads.
    spare: Vec<AlignedBuf>,
    next_request: u32,
    summary: Summary,
}

impl Server<'_> {
    /// Starts the next requests of clients.
    fn accept(&mut self) -> Result<(), Box<dyn Error>> {
        while self.loads.len() < CLIENTS && self.next_request < REQUESTS {
            let document = wanted(self.next_request);
            self.next_request += 1;
            let memory = self.spare.pop().map_or_else(|| AlignedBuf::zeroed(DOCUMENT_BYTES), Ok)?;
            let get = OwnedGet::new(document.to_le_bytes(), memory);
            // A load that waits for longer is worth less than the document made again.
            let batch = Batch::new([get]).by(Instant::now() + PATIENCE);
            match self.queue.submit_get(batch) {
                Ok(id) => drop(self.loads.insert(id, document)),
                Err(refused) => {
                    println!("document {document} is not loaded: {refused}");
                    self.serve_made(document)?;
                }
            }
        }
        Ok(())
    }

    /// Serves a document that is not in the cache, and stores it.
    fn serve_made(&mut self, document: u32) -> Result<(), Box<dyn Error>> {
        self.summary.misses += 1;
        let put = OwnedPut::new(document.to_le_bytes(), make(document)?);
        // A cache that is overloaded drops the document.
        self.summary.not_stored += u32::from(self.queue.submit_put([put]).is_err());
        Ok(())
    }

    fn complete(&mut self, id: RequestId, outcome: Outcome) -> Result<(), Box<dyn Error>> {
        match outcome {
            Outcome::Get(gets) => {
                let document = self.loads.remove(&id).ok_or("a load completed twice")?;
                for get in gets {
                    match get.payload() {
                        Some(found) => {
                            assert_eq!(found, &make(document)?[..], "document {document}");
                            self.summary.hits += 1;
                        }
                        None => self.serve_made(document)?,
                    }
                    self.spare.extend(AlignedBuf::try_from(get.item.into_payload()));
                }
            }
            Outcome::Put(puts) => {
                let stored = puts.iter().filter(|put| put.result.is_ok()).count();
                self.summary.stored += u32::try_from(stored)?;
                self.summary.not_stored += u32::try_from(puts.len() - stored)?;
            }
            other => return Err(format!("unexpected completion: {other:?}").into()),
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::NamedTempFile::new_in(".")?;
    temporary.as_file().set_len(64 << 20)?;
    let path = std::env::args_os().nth(1).map_or(temporary.path().to_owned(), PathBuf::from);
    let backend = open_backend(&path, Engine::Auto, Direct::Preferred)?;
    Store::format(backend.clone(), &FormatOptions::default().force(true))?;
    let options = OpenOptions::default().eviction(EvictionPolicy::Lru);
    let store = AsyncStore::start(
        Store::open_with(backend, &options)?,
        &AsyncOptions::new().slow_after(PATIENCE),
    )?;
    let queue = store.completions(1024)?;

    // A server would add its sockets here.
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(queue.event_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let (loads, spare, summary) = (HashMap::new(), Vec::new(), Summary::default());
    let mut server = Server { queue: &queue, loads, spare, next_request: 0, summary };
    let mut completions = Vec::new();
    let started = Instant::now();
    server.accept()?;
    while !server.loads.is_empty() {
        epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)?;
        server.summary.wakes += 1;
        queue.drain(&mut completions)?;
        for completion in completions.drain(..) {
            server.complete(completion.id, completion.outcome)?;
        }
        server.accept()?;
    }
    let elapsed = started.elapsed();
    let report = store.close(Duration::from_secs(60))?;
    queue.drain(&mut completions)?;
    for completion in completions.drain(..) {
        server.complete(completion.id, completion.outcome)?;
    }
    let summary = server.summary;
    println!("{REQUESTS} requests in {elapsed:.2?}: {summary:?}");
    assert_eq!(summary.hits + summary.misses, REQUESTS);
    assert_eq!(summary.stored + summary.not_stored, summary.misses);
    assert!(summary.hits > summary.misses, "the cache is of use");
    assert!(report.is_closed);
    Ok(())
}
