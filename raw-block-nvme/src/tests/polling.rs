//! Queues that poll for completions, and local queues.

use raw_block_core::backend::OpKind;
use raw_block_core::{AlignedBuf, ErrorKind, OwnedTransfer, WriteAt};

use super::failing::run;
use super::identifying::KERNEL;
use super::stage::Stage;
use crate::polling::check_driver;
use crate::sysfs::QueueLimits;

#[test]
fn a_polling_queue_retries_commands_without_timers() {
    let Some(stage) = Stage::polling() else { return };
    // Retryable statuses; no entry between the commands is a timer.
    let (written, entries) = run(&stage, OpKind::Write, 1, &[0x021, 0x022, 0]);
    assert_eq!((written.map_err(|error| error.to_string()), entries), (Ok(()), 3));
    // The first and the third of three commands pause, and the second completes in the meantime.
    let (written, entries) = run(&stage, OpKind::Write, 3, &[0x021, 0, 0x021, 0, 0]);
    assert_eq!((written.map_err(|error| error.to_string()), entries), (Ok(()), 5));
    let (written, entries) = run(&stage, OpKind::Write, 1, &[0x021; 6]);
    assert_eq!((written.unwrap_err().kind(), entries), (ErrorKind::Io, 6));
}

#[test]
fn tickets_of_a_polling_queue_wait_for_pauses() {
    let Some(stage) = Stage::polling() else { return };
    stage.script(&[0x021, 0]);
    let buffer = AlignedBuf::zeroed(4096).unwrap();
    let batch = vec![OwnedTransfer::new(0, buffer)];
    let mut ticket = stage.dispatcher.batched_write(batch).unwrap();
    // None of these calls waits for the end of the pause.
    let finished = loop {
        if let Some(finished) = ticket.try_wait() {
            break finished;
        }
    };
    finished[0].result.as_ref().unwrap();
    assert_eq!(stage.left(), []);
}

#[test]
fn a_flush_without_a_cache_completes_in_a_polling_queue() {
    let Some(stage) = Stage::polling() else { return };
    stage.dispatcher.flush().unwrap();
}

#[test]
fn polling_is_refused_where_driver_or_kernel_cannot() {
    check_driver(Some(&KERNEL)).unwrap();
    let without = QueueLimits { polls: false, ..KERNEL };
    for (kernel, word) in [(Some(&without), "poll_queues"), (None, "/sys")] {
        let error = check_driver(kernel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(word), "{error}");
    }
    // `/dev/null` accepts commands, and cannot be polled.
    let (Some(polling), Some(plain)) = (Stage::polling(), Stage::new()) else { return };
    let error = polling.check_polling().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("Linux 6.1"), "{error}");
    plain.check_polling().unwrap();
}

#[test]
fn a_local_queue_retries_commands_and_has_no_event_fd() {
    let Some(stage) = Stage::new() else { return };
    let queue = stage.local_queue();
    assert_eq!(queue.event_fd().is_none(), queue.is_local());
    // A blocking call uses a local queue.
    stage.script(&[0x021, -libc::ETIME, 0]);
    let buffer = AlignedBuf::zeroed(4096).unwrap();
    stage.dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    assert_eq!(stage.left(), []);
}
