//! The KV cache of an LLM server with asynchronous tasks: each prompt is a task on tokio that loads
//! the longest prefix of its chunks that the cache holds, computes the rest, and stores it without
//! waiting for that.
//!
//! Usage: `async_kv_cache [PATH]`. PATH is a file or a block device, whose contents are lost.
//! Without it, a temporary file is used.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use raw_block_store::{
    AlignedBuf, AsyncOptions, AsyncStore, Batch, Direct, Engine, EvictionPolicy, FormatOptions,
    OpenOptions, OwnedGet, OwnedPut, Store, open_backend,
};

type Failure = Box<dyn Error + Send + Sync>;

/// Tokens per chunk, and the bytes that their keys and values take in all layers.
const CHUNK_TOKENS: usize = 256;
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: u32 = 8;
/// Prompts, which share one of these numbers of leading chunks with others.
const PROMPTS: u32 = 24;
const CONVERSATIONS: u32 = 4;
/// For how long a load may wait, and for how long the device may not answer. Of a drive this would
/// be less; the file of this example may be on a busy disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// The key of each chunk: a hash of all tokens up to its end, because attention looks at all of
/// them.
fn chunk_keys(tokens: &[u32]) -> Vec<[u8; 8]> {
    let mut hasher = DefaultHasher::new();
    tokens
        .chunks_exact(CHUNK_TOKENS)
        .map(|chunk| {
            chunk.hash(&mut hasher);
            hasher.finish().to_le_bytes()
        })
        .collect()
}

/// The chunk that a model computes from these tokens.
fn compute(key: [u8; 8]) -> Result<AlignedBuf, Failure> {
    let mut chunk = AlignedBuf::zeroed(CHUNK_BYTES)?;
    chunk.chunks_exact_mut(key.len()).for_each(|part| part.copy_from_slice(&key));
    Ok(chunk)
}

/// Serves a prompt. Returns how many of its chunks were loaded.
async fn serve(store: AsyncStore, tokens: Vec<u32>) -> Result<usize, Failure> {
    let keys = chunk_keys(&tokens);
    // Only the index is asked.
    let present =
        store.contains_many(keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>()).await;
    let prefix = present.iter().take_while(|key| matches!(key.result, Ok(true))).count();
    let memory = keys[..prefix].iter().map(|_| AlignedBuf::zeroed(CHUNK_BYTES));
    let memory = memory.collect::<Result<Vec<_>, _>>()?;
    let gets: Vec<_> =
        keys.iter().zip(memory).map(|(key, memory)| OwnedGet::new(*key, memory)).collect();
    // Beyond this it is faster to compute the chunks.
    let gets = Batch::new(gets).by(Instant::now() + PATIENCE);
    let found = store.get_many(gets).await;
    let mut chunks = 0;
    // A chunk that fails its checks, or was evicted, ends the prefix.
    for (get, key) in found.iter().zip(&keys) {
        let Some(payload) = get.payload() else { break };
        assert_eq!(payload, &compute(*key)?[..]);
        chunks += 1;
    }
    let computed = keys[chunks..].iter().map(|&key| Ok(OwnedPut::new(key, compute(key)?)));
    let puts = computed.collect::<Result<Vec<_>, Failure>>()?;
    // The answer does not wait for this. A cache that is overloaded drops the chunks.
    let stored = store.put_many_if_absent(puts);
    tokio::spawn(async move {
        for put in stored.await {
            if let Err(error) = put.result {
                println!("a chunk is not stored: {error}");
            }
        }
    });
    Ok(chunks)
}

/// Prompts of conversations: those of one have their first half in common.
fn prompt(number: u32) -> Vec<u32> {
    let conversation = number % CONVERSATIONS;
    let half = CHUNKS / 2 * 256;
    (0..half)
        .map(|at| conversation << 16 | at)
        .chain((0..half).map(|at| number << 20 | at))
        .collect()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let temporary = tempfile::NamedTempFile::new_in(".")?;
    temporary.as_file().set_len(128 << 20)?;
    let path = std::env::args_os().nth(1).map_or(temporary.path().to_owned(), PathBuf::from);
    let backend = open_backend(&path, Engine::Auto, Direct::Preferred)?;
    println!("{} through {}", path.display(), backend.engine());
    Store::format(backend.clone(), &FormatOptions::default().force(true))?;
    let options = OpenOptions::default().eviction(EvictionPolicy::Lru);
    let store = AsyncStore::start(
        Store::open_with(backend, &options)?,
        &AsyncOptions::new().slow_after(PATIENCE),
    )?;

    for round in ["first", "second"] {
        let started = Instant::now();
        let tasks: Vec<_> =
            (0..PROMPTS).map(|number| tokio::spawn(serve(store.clone(), prompt(number)))).collect();
        let mut loaded = 0;
        for task in tasks {
            loaded += task.await??;
        }
        let chunks = PROMPTS * CHUNKS;
        println!("{round} round: {loaded} of {chunks} chunks loaded in {:.2?}", started.elapsed());
        // What was put before is durable, and in the cache for the next round.
        while store.stats().queued + store.stats().running > 0 {
            tokio::task::yield_now().await;
        }
        store.flush().await?;
        assert!(round == "first" || loaded == chunks as usize, "every chunk was stored");
    }
    println!("{:?}", store.stats());
    let closed =
        tokio::task::spawn_blocking(move || store.close(Duration::from_secs(60))).await??;
    assert!(closed.is_closed);
    Ok(())
}
