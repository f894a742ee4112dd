//! Futures on the runtimes of tokio.

use raw_block_core::backend::OpKind;
use raw_block_store::AsyncStore;
use tokio::runtime::{Builder, Runtime};

use crate::common::{bytes, memory as device, small, store_on};
use crate::support::{Stoppable, found, get, options, put, until};

/// Tasks that put and get concurrently.
fn run(runtime: &Runtime) {
    let store = store_on(&device(8 << 20), &small());
    let store = AsyncStore::start(store, &options()).unwrap();
    let task = |number: u8| {
        let store = store.clone();
        async move {
            for round in 0..10 {
                let payload = bytes(u64::from(number) << 8 | round, 2000);
                let puts = store.put_many([put(&[number], &payload)]).await;
                puts.into_iter().for_each(|put| put.result.unwrap());
                assert_eq!(found(&store.get_many([get(&[number])]).await), Some(payload));
            }
        }
    };
    runtime.block_on(async {
        let tasks: Vec<_> = (0..32).map(|number| tokio::spawn(task(number))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        store.flush().await.unwrap();
    });
    assert_eq!((store.stats().executed, store.store().stats().objects), (32 * 20 + 1, 32));
}

#[test]
fn tasks_of_a_runtime_with_several_threads_wait() {
    run(&Builder::new_multi_thread().worker_threads(3).build().unwrap());
}

#[test]
fn tasks_of_a_runtime_with_one_thread_wait() {
    run(&Builder::new_current_thread().build().unwrap());
}

#[test]
fn an_aborted_task_gives_up_its_request() {
    let stopped = Stoppable::new(&options().store_threads(1));
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    stopped.stop(&[OpKind::Write]);
    let task = |key: &'static [u8]| {
        let store = stopped.store.clone();
        runtime.spawn(async move { store.put_many([put(key, &[1; 1000])]).await })
    };
    let runs = task(b"runs");
    stopped.wait_for_running(1);
    let waits = task(b"waits");
    until(|| stopped.store.stats().queued == 1);
    waits.abort();
    until(|| stopped.store.stats().cancelled == 1);
    stopped.go_on();
    let done = runtime.block_on(runs).unwrap();
    assert!(done[0].result.is_ok() && !stopped.store.store().contains(b"waits").unwrap());
}
