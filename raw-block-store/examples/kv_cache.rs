//! The KV cache of an LLM server on a device: the chunks of a prompt are put in one batch, and the
//! longest prefix that the store holds is loaded in one batch.
//!
//! Usage: `kv_cache [PATH]`. PATH is a file or a block device, whose contents are lost. Without it,
//! a temporary file is used.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Instant;

use raw_block_store::{
    AlignedBuf, Direct, Engine, EvictionPolicy, FormatOptions, Get, OpenOptions, Put, Store,
    open_backend,
};

/// Tokens per chunk, and the bytes that their keys and values take in all layers.
const CHUNK_TOKENS: usize = 256;
const CHUNK_BYTES: usize = 256 << 10;

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

/// Loads the chunks of the longest prefix of `tokens` that the store holds; returns how many.
fn load_prefix(
    store: &Store,
    tokens: &[u32],
    memory: &mut [AlignedBuf],
) -> Result<usize, Box<dyn Error>> {
    let keys = chunk_keys(tokens);
    let there = store.prefix_len(&keys)?;
    let mut gets: Vec<_> =
        keys[..there].iter().zip(memory).map(|(key, buffer)| Get::new(key, buffer)).collect();
    let found = store.get_many(&mut gets);
    // A chunk that fails its checks ends the prefix, like one that is missing.
    Ok(found.iter().take_while(|found| matches!(found, Ok(Some(_)))).count())
}

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::NamedTempFile::new_in(".")?;
    temporary.as_file().set_len(64 << 20)?;
    let path = std::env::args_os().nth(1).map_or(temporary.path().to_owned(), PathBuf::from);

    let backend = open_backend(&path, Engine::Auto, Direct::Preferred)?;
    println!("{} through {}", path.display(), backend.engine());
    let options = FormatOptions::default().force(true);
    Store::format(backend.clone(), &options)?;
    let options = OpenOptions::default().eviction(EvictionPolicy::Lru);
    let store = Store::open_with(backend, &options)?;

    // A prompt of 32 chunks was computed: chunks that are there already are not written again.
    let prompt: Vec<u32> = (0..32 * 256).collect();
    let mut chunk = AlignedBuf::zeroed(CHUNK_BYTES)?;
    chunk.fill(0x3C);
    let keys = chunk_keys(&prompt);
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &chunk)).collect();
    let started = Instant::now();
    store.put_many_if_absent(&puts).all()?;
    println!("put 32 chunks of 256 KiB in {:.2?}", started.elapsed());

    // The same prompt comes again, then one that differs from the 20th chunk on.
    let mut memory =
        (0..32).map(|_| AlignedBuf::zeroed(CHUNK_BYTES)).collect::<Result<Vec<_>, _>>()?;
    let mut other = prompt.clone();
    other[20 * CHUNK_TOKENS] += 1;
    for (name, tokens) in [("the same prompt", &prompt), ("one with another end", &other)] {
        let started = Instant::now();
        let hits = load_prefix(&store, tokens, &mut memory)?;
        println!("{name}: {hits} of 32 chunks, loaded in {:.2?}", started.elapsed());
    }
    println!("{:?}", store.stats());
    store.close()?;
    Ok(())
}
