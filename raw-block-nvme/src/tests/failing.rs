//! Ops whose commands the controller or the kernel fails.

use raw_block_core::backend::OpKind;
use raw_block_core::{AlignedBuf, Error, ErrorClass, ReadAt, WriteAt};

use super::stage::Stage;
use crate::Status;

/// The longest command of the stage, in bytes.
pub(super) const COMMAND: usize = 128 << 10;
/// The result of a timer in the ring that expired.
const TIMER: i32 = -libc::ETIME;

/// Executes an op of `commands` commands whose completions have these results. Returns its result,
/// and the number of entries that the kernel took.
pub(super) fn run(
    stage: &Stage,
    kind: OpKind,
    commands: usize,
    results: &[i32],
) -> (Result<(), Error>, u64) {
    stage.script(results);
    let before = stage.dispatcher.stats().commands;
    let mut buffer = AlignedBuf::zeroed(commands * COMMAND).unwrap();
    let result = match kind {
        OpKind::Read => stage.dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all(),
        _ => stage.dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all(),
    };
    assert_eq!(stage.left(), [], "{result:?}");
    (result, stage.dispatcher.stats().commands - before)
}

#[test]
fn a_write_of_unknown_outcome_is_sent_once() {
    let Some(stage) = Stage::new() else { return };
    for result in [0x371, 0x370, 0x360, -libc::EINTR] {
        let (written, entries) = run(&stage, OpKind::Write, 1, &[result]);
        let error = written.unwrap_err();
        assert_eq!((error.class(), entries), (ErrorClass::Unknown, 1), "{error}");
    }
    // A read is retried: a command, a timer, a command.
    for result in [0x371, -libc::EINTR] {
        let (read, entries) = run(&stage, OpKind::Read, 1, &[result, TIMER, 0]);
        read.unwrap();
        assert_eq!(entries, 3);
    }
}

#[test]
fn a_write_of_known_outcome_is_retried() {
    let Some(stage) = Stage::new() else { return };
    let (written, entries) = run(&stage, OpKind::Write, 1, &[0x021, TIMER, 0x007, TIMER, 0]);
    assert_eq!((written.map_err(|error| error.to_string()), entries), (Ok(()), 5));
    let (written, entries) = run(&stage, OpKind::Write, 1, &[-libc::ECANCELED, -libc::EAGAIN, 0]);
    assert_eq!((written.map_err(|error| error.to_string()), entries), (Ok(()), 3));
}

#[test]
fn a_command_that_pauses_when_its_ring_breaks_fails() {
    for stage in [Stage::new(), Stage::polling()] {
        let Some(stage) = stage else { return };
        stage.break_after(1);
        let (written, entries) = run(&stage, OpKind::Write, 1, &[0x021]);
        let error = written.unwrap_err();
        // The controller has started it.
        assert_eq!((error.class(), entries), (ErrorClass::Failed, 1), "{error}");
        assert_eq!(error.os_error().and_then(std::io::Error::raw_os_error), Some(libc::EBADF));
        stage.break_after(0);
        let error = run(&stage, OpKind::Write, 1, &[]).0.unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotStarted, "{error}");
    }
}

#[test]
fn an_op_has_the_class_of_all_its_commands() {
    let Some(stage) = Stage::new() else { return };
    let class = |results: &[i32]| {
        let (written, _) = run(&stage, OpKind::Write, results.len(), results);
        let error = written.unwrap_err();
        (error.class(), Status::of(&error).unwrap().code())
    };
    // LBA Out of Range, and Write Fault.
    assert_eq!(class(&[0x080]), (ErrorClass::NotStarted, 0x80));
    assert_eq!(class(&[0x080, 0x080, 0x080]), (ErrorClass::NotStarted, 0x80));
    assert_eq!(class(&[0x080, 0, 0]), (ErrorClass::Failed, 0x80), "the others were written");
    assert_eq!(class(&[0, 0, 0x080]), (ErrorClass::Failed, 0x80));
    assert_eq!(class(&[0x080, 0x280, 0x080]), (ErrorClass::Failed, 0x80));
    assert_eq!(class(&[0x280, 0x371, 0x080]), (ErrorClass::Unknown, 0x71), "one is unknown");
    assert_eq!(class(&[0, 0x360, 0x371]), (ErrorClass::Unknown, 0x60), "the first of them");
}
