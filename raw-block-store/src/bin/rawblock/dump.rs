//! `rawblock dump`: the structures on the device, as the format describes them.

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use raw_block_core::{AlignedBuf, Dispatcher, Error as DeviceError, ReadAt};
use raw_block_store::format::{
    CheckpointBlock, CheckpointHeader, Damage, DeleteLogBlock, ObjectEntry, SUPERBLOCK_CELL_LEN,
    SUPERBLOCK_COPIES, SlotHeader, Superblock, SuperblockState, body_blocks, entries_per_block,
    superblock_offsets,
};
use serde_json::{Map, Value, json};

use crate::Answer;
use crate::arguments::{Dump, Structure};
use crate::output::{Hex, Text, UNWRITTEN, date};

/// Blocks that are read at once.
const AT_ONCE: u64 = 256;

pub(crate) fn run(arguments: &Dump) -> Result<Answer> {
    let device = Dispatcher::read_only(arguments.device.look()?)?;
    let copies = Copies::read(&device)?;
    let mut out = Output { out: BufWriter::new(io::stdout().lock()), json: arguments.json };
    match arguments.structure {
        Structure::Superblock => {
            for number in chosen(arguments.number, 0..SUPERBLOCK_COPIES as u64)? {
                let index = usize::try_from(number)?;
                let fields = copies.copy(index).map(|copy| superblock_fields(&copy));
                out.structure("superblock", number, copies.offsets[index], fields)?;
            }
        }
        structure => {
            let Some(store) = copies.newest() else {
                bail!(
                    "{} has no valid superblock, which would tell where its other structures are: \
                     `rawblock dump PATH` shows the copies",
                    arguments.device.path.display()
                );
            };
            match structure {
                Structure::Checkpoint => checkpoints(&device, &store, arguments, &mut out)?,
                Structure::DeleteLog => delete_log(&device, &store, arguments, &mut out)?,
                Structure::Slot | Structure::Superblock => {
                    slots(&device, &store, arguments, &mut out)?;
                }
            }
        }
    }
    out.out.flush().context(UNWRITTEN)?;
    Ok(Answer::Yes)
}

/// The cells of the superblock.
pub(crate) struct Copies {
    pub(crate) offsets: [u64; SUPERBLOCK_COPIES],
    cells: [Result<AlignedBuf, DeviceError>; SUPERBLOCK_COPIES],
}

impl Copies {
    pub(crate) fn read(device: &Dispatcher) -> Result<Self> {
        let mut copies = Self::read_at(device, device.geometry().capacity)?;
        // On a device that became longer the last copy is no longer at its end.
        if let Some(store) = copies.newest() {
            let last = store.last_superblock_offset.get();
            if last < copies.offsets[2] {
                copies = Self::read_at(device, last + SUPERBLOCK_CELL_LEN as u64)?;
            }
        }
        Ok(copies)
    }

    fn read_at(device: &Dispatcher, capacity: u64) -> Result<Self> {
        let offsets = superblock_offsets(capacity)
            .with_context(|| format!("{capacity} bytes are too few for a store"))?;
        let read = |offset| {
            let mut cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN)?;
            device.read_buffers(&mut [ReadAt::new(offset, &mut cell)]).all()?;
            Ok(cell)
        };
        Ok(Self { offsets, cells: offsets.map(read) })
    }

    /// The newest valid copy.
    pub(crate) fn newest(&self) -> Option<Superblock> {
        let cells = self.cells.each_ref().map(|cell| cell.as_deref().unwrap_or_default());
        Superblock::newest(cells).newest.copied()
    }

    /// One copy, or why it is none.
    pub(crate) fn copy(&self, index: usize) -> Result<Superblock, String> {
        let cell = self.cells[index].as_ref().map_err(ToString::to_string)?;
        Superblock::read(cell).copied().map_err(|damage| damage.to_string())
    }
}

/// One line for each structure: text for people, or JSON.
struct Output<'a> {
    out: BufWriter<io::StdoutLock<'a>>,
    json: bool,
}

impl Output<'_> {
    fn structure(
        &mut self,
        name: &str,
        number: u64,
        offset: u64,
        fields: Result<Map<String, Value>, String>,
    ) -> Result<()> {
        let written = if self.json {
            let mut line = Map::new();
            line.insert("structure".into(), name.into());
            line.insert("number".into(), number.into());
            line.insert("offset".into(), offset.into());
            line.insert("valid".into(), fields.is_ok().into());
            match fields {
                Ok(fields) => line.extend(fields),
                Err(damage) => _ = line.insert("damage".into(), damage.into()),
            }
            writeln!(self.out, "{}", Value::Object(line))
        } else {
            write!(self.out, "{name} {number} at {offset}:").and_then(|()| match fields {
                Ok(fields) => {
                    for (name, value) in &fields {
                        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        write!(self.out, " {name}={value}")?;
                    }
                    writeln!(self.out)
                }
                Err(damage) => writeln!(self.out, " not valid: {damage}"),
            })
        };
        written.context(UNWRITTEN)
    }
}

fn superblock_fields(copy: &Superblock) -> Map<String, Value> {
    let (state, clean_checkpoint) = match copy.state() {
        SuperblockState::Clean { checkpoint, verified: true } => ("clean", checkpoint),
        SuperblockState::Clean { checkpoint, verified: false } => {
            ("clean, not verified", checkpoint)
        }
        SuperblockState::Open => ("open", 0),
    };
    let created = Duration::from_nanos(copy.created_unix_ns.get());
    fields(json!({
        "generation": copy.generation.get(),
        "state": state,
        "clean_checkpoint": clean_checkpoint,
        "uuid": uuid(copy),
        "label": Text(copy.label().as_bytes()).to_string(),
        "created": date(created),
        "block_bytes": copy.block_size.get(),
        "slot_bytes": copy.slot_size.get(),
        "slots": copy.slot_count.get(),
        "device_bytes": copy.device_len.get(),
        "checkpoint_offsets": copy.checkpoint_offset.map(u64::from),
        "checkpoint_bytes": copy.checkpoint_len.get(),
        "delete_log_offset": copy.delete_log_offset.get(),
        "delete_log_bytes": copy.delete_log_len.get(),
        "slots_offset": copy.slots_offset.get(),
        "last_superblock_offset": copy.last_superblock_offset.get(),
        "features": [
            copy.features_compatible.get(),
            copy.features_read_only_compatible.get(),
            copy.features_incompatible.get(),
        ],
    }))
}

/// The UUID in its usual form.
pub(crate) fn uuid(copy: &Superblock) -> String {
    let hex = Hex(&copy.preamble.uuid).to_string();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn checkpoints(
    device: &Dispatcher,
    store: &Superblock,
    arguments: &Dump,
    out: &mut Output<'_>,
) -> Result<()> {
    let block_size = store.block_size.get();
    for number in chosen(arguments.number, 0..2)? {
        let offset = store.checkpoint_offset[usize::try_from(number)?].get();
        let block = read_blocks(device, store, offset, 1)?.remove(0);
        let header = readable(block).and_then(|block| {
            CheckpointHeader::read(&block, store).copied().map_err(|damage| damage.to_string())
        });
        let checkpoint = header.as_ref().ok().map(|header| header.number.get());
        out.structure("checkpoint", number, offset, header.map(|header| header_fields(&header)))?;
        // Without its number, no block of the body can be told from one of an earlier checkpoint.
        let Some(checkpoint) = checkpoint else { continue };
        let blocks = body_blocks(store.slot_count.get(), block_size).unwrap_or(0);
        each_block(
            device,
            store,
            offset + u64::from(block_size),
            0..blocks,
            |index, at, block| {
                let entries = readable(block).and_then(|block| {
                    let entries = CheckpointBlock::read(&block, store, checkpoint, index);
                    entries.map(<[ObjectEntry]>::to_vec).map_err(|damage| damage.to_string())
                });
                match entries {
                    Err(damage) => out.structure("checkpoint-block", index, at, Err(damage)),
                    Ok(entries) => {
                        let first = index * entries_per_block(block_size);
                        let mut live = (first..).zip(&entries).filter(|(_, entry)| entry.is_live());
                        live.try_for_each(|(slot, entry)| {
                            let at = store.slot_offset(slot).unwrap_or(0);
                            out.structure("object", slot, at, Ok(fields(entry_fields(entry))))
                        })
                    }
                }
            },
        )?;
    }
    Ok(())
}

fn header_fields(header: &CheckpointHeader) -> Map<String, Value> {
    fields(json!({
        "checkpoint": header.number.get(),
        "covered_sequence": header.covered_sequence.get(),
        "next_sequence": header.next_sequence.get(),
        "entries": header.entry_count.get(),
        "live": header.live_count.get(),
    }))
}

fn entry_fields(entry: &ObjectEntry) -> Value {
    json!({
        "sequence": entry.sequence.get(),
        "key_hash": Hex(&entry.key_hash).to_string(),
        "key_bytes": entry.key_len.get(),
        "metadata_bytes": entry.metadata_len.get(),
        "value_bytes": entry.payload_len.get(),
    })
}

fn delete_log(
    device: &Dispatcher,
    store: &Superblock,
    arguments: &Dump,
    out: &mut Output<'_>,
) -> Result<()> {
    let blocks = store.delete_log_len.get() / u64::from(store.block_size.get());
    let chosen = chosen(arguments.number, 0..blocks)?;
    each_block(device, store, store.delete_log_offset.get(), chosen, |index, at, block| {
        let fields = readable(block).and_then(|block| {
            let (header, records) =
                DeleteLogBlock::read(&block, store, index).map_err(|damage| damage.to_string())?;
            let records: Vec<_> = records
                .iter()
                .map(|record| {
                    let (hash, sequence) =
                        (Hex(&record.key_hash).to_string(), record.sequence.get());
                    json!({ "key_hash": hash, "sequence": sequence })
                })
                .collect();
            Ok(fields(json!({ "checkpoint": header.checkpoint.get(), "records": records })))
        });
        out.structure("delete-log", index, at, fields)
    })
}

fn slots(
    device: &Dispatcher,
    store: &Superblock,
    arguments: &Dump,
    out: &mut Output<'_>,
) -> Result<()> {
    for slot in chosen(arguments.number, 0..store.slot_count.get())? {
        let Some(offset) = store.slot_offset(slot) else { break };
        let block = read_blocks(device, store, offset, 1)?.remove(0);
        let found = readable(block).and_then(|block| match SlotHeader::read(&block, store, slot) {
            Ok(view) => {
                let mut found = fields(json!({
                    "key": Text(view.key).to_string(),
                    "key_hex": Hex(view.key).to_string(),
                }));
                found.extend(fields(entry_fields(&view.header.entry)));
                found.insert("checkpoint".into(), view.header.checkpoint.get().into());
                found.insert(
                    "value_checksum".into(),
                    format!("{:#018x}", view.header.payload_checksum.get()).into(),
                );
                found.insert("value_in_header".into(), view.inline_payload.is_some().into());
                Ok(Some(found))
            }
            // Most slots of a young store.
            Err(Damage::NotThisStructure { .. }) if arguments.number.is_none() => Ok(None),
            Err(damage) => Err(damage.to_string()),
        });
        if let Some(found) = found.transpose() {
            out.structure("slot", slot, offset, found)?;
        }
    }
    Ok(())
}

fn readable(block: Block) -> Result<Vec<u8>, String> {
    block.map_err(|error| error.to_string())
}

/// The fields of a JSON object.
fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The numbers to show: all, or one.
fn chosen(number: Option<u64>, all: Range<u64>) -> Result<Range<u64>> {
    match number {
        None => Ok(all),
        Some(number) if all.contains(&number) => Ok(number..number + 1),
        Some(number) => bail!("there is no number {number}: the last one is {}", all.end - 1),
    }
}

/// A block of the store, or why it cannot be read.
pub(crate) type Block = Result<Vec<u8>, DeviceError>;

/// Calls `visit` with the number, the offset and the bytes of each of `blocks`, of which the first lies at
/// `offset`.
pub(crate) fn each_block(
    device: &Dispatcher,
    store: &Superblock,
    offset: u64,
    blocks: Range<u64>,
    mut visit: impl FnMut(u64, u64, Block) -> Result<()>,
) -> Result<()> {
    let block_size = u64::from(store.block_size.get());
    let mut next = blocks.start;
    while next < blocks.end {
        let count = AT_ONCE.min(blocks.end - next);
        let at = offset + next * block_size;
        for (block, index) in read_blocks(device, store, at, count)?.into_iter().zip(next..) {
            visit(index, offset + index * block_size, block)?;
        }
        next += count;
    }
    Ok(())
}

/// Reads `count` blocks that lie one behind the other, as one batch.
fn read_blocks(
    device: &Dispatcher,
    store: &Superblock,
    offset: u64,
    count: u64,
) -> Result<Vec<Block>> {
    let block_size = store.block_size.get() as usize;
    let mut bytes = AlignedBuf::zeroed(usize::try_from(count)? * block_size)?;
    let places = (offset..).step_by(block_size);
    let mut reads: Vec<_> = places
        .zip(bytes.chunks_exact_mut(block_size))
        .map(|(at, block)| ReadAt::new(at, block))
        .collect();
    let results = device.read_buffers(&mut reads);
    let blocks = bytes.chunks_exact(block_size).zip(results);
    Ok(blocks.map(|(block, result)| result.map(|()| block.to_vec())).collect())
}
