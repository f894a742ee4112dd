//! One queue of the front: the requests that wait, and those that run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Instant;

use super::job::Job;

/// Requests are executed together up to this many objects and bytes, so that small ones share a
/// submission, and large ones run on several workers.
const MAX_JOINED_OBJECTS: usize = 64;
const MAX_JOINED_BYTES: u64 = 1 << 20;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) id: u64,
    pub(super) deadline: Option<Instant>,
    pub(super) objects: usize,
    /// Bytes of memory that it owns.
    pub(super) bytes: u64,
    pub(super) job: Job,
}

/// Requests that a worker executes as one call.
#[derive(Clone, Copy, Debug)]
struct Running {
    began: Instant,
    requests: usize,
    bytes: u64,
}

/// The requests of one kind.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    /// In the order of their ids.
    waiting: VecDeque<Queued>,
    /// The deadlines of `waiting`.
    deadlines: BTreeSet<(Instant, u64)>,
    waiting_bytes: u64,
    /// By the id of their first request.
    running: BTreeMap<u64, Running>,
}

impl RequestQueue {
    pub(super) fn push(&mut self, request: Queued) {
        self.waiting_bytes += request.bytes;
        self.deadlines.extend(request.deadline.map(|deadline| (deadline, request.id)));
        self.waiting.push_back(request);
    }

    /// The number of requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The number of requests that run.
    pub(super) fn running(&self) -> usize {
        self.running.values().map(|running| running.requests).sum()
    }

    /// Whether nothing waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Bytes of the requests that run.
    pub(super) fn running_bytes(&self) -> u64 {
        self.running.values().map(|running| running.bytes).sum()
    }

    /// Bytes of the requests that wait or run.
    pub(super) fn bytes(&self) -> u64 {
        self.waiting_bytes + self.running_bytes()
    }

    /// When the oldest call that runs began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.running.values().map(|running| running.began).min()
    }

    /// The next deadline of a request that waits.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Whether [`take`](Self::take) returns something.
    pub(super) fn can_take(&self, window: u64) -> bool {
        let bytes = |first: &Queued| self.running_bytes().saturating_add(first.bytes);
        let fits = |first| self.running.is_empty() || bytes(first) <= window;
        self.waiting.front().is_some_and(fits)
    }

    /// Takes the requests that are executed next, which run from then on until
    /// [`ended`](Self::ended). The first one is taken if it is within `window` bytes together with
    /// all that run, or if none runs.
    pub(super) fn take(&mut self, now: Instant, window: u64) -> Option<(u64, Vec<Queued>)> {
        let running = self.running_bytes();
        let first = self.waiting.front().filter(|_| self.can_take(window))?;
        let (id, kind) = (first.id, mem::discriminant(&first.job));
        let (mut objects, mut bytes) = (first.objects, first.bytes);
        let joins = |request: &&Queued| {
            objects = objects.saturating_add(request.objects);
            bytes = bytes.saturating_add(request.bytes);
            mem::discriminant(&request.job) == kind
                && objects <= MAX_JOINED_OBJECTS
                && bytes <= MAX_JOINED_BYTES
                && running.saturating_add(bytes) <= window
        };
        let count = 1 + self.waiting.iter().skip(1).take_while(joins).count();
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        for request in &taken {
            Self::forget(&mut self.deadlines, &mut self.waiting_bytes, request);
        }
        let bytes = taken.iter().map(|request| request.bytes).sum();
        self.running.insert(id, Running { began: now, requests: taken.len(), bytes });
        Some((id, taken))
    }

    /// The requests that [`take`](Self::take) returned with this id have ended. Returns how many.
    pub(super) fn ended(&mut self, id: u64) -> usize {
        self.running.remove(&id).map_or(0, |running| running.requests)
    }

    /// Takes the requests whose deadline has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Queued> {
        let mut expired = Vec::new();
        while let Some(&(_, id)) = self.deadlines.first().filter(|&&(deadline, _)| deadline <= now)
        {
            self.deadlines.pop_first();
            expired.extend(self.take_one(id));
        }
        expired
    }

    /// Takes one request, if it waits.
    pub(super) fn take_one(&mut self, id: u64) -> Option<Queued> {
        let at = self.waiting.binary_search_by_key(&id, |request| request.id).ok()?;
        let request = self.waiting.remove(at)?;
        Self::forget(&mut self.deadlines, &mut self.waiting_bytes, &request);
        Some(request)
    }

    /// Takes all requests that wait.
    pub(super) fn take_all(&mut self) -> VecDeque<Queued> {
        self.deadlines.clear();
        self.waiting_bytes = 0;
        mem::take(&mut self.waiting)
    }

    /// Takes the requests that wait and of which this is true.
    pub(super) fn take_if(&mut self, is_wanted: impl Fn(&Job) -> bool) -> Vec<Queued> {
        let wanted: Vec<_> =
            self.waiting.iter().filter(|request| is_wanted(&request.job)).map(|of| of.id).collect();
        wanted.into_iter().filter_map(|id| self.take_one(id)).collect()
    }

    /// A request waits no more.
    fn forget(deadlines: &mut BTreeSet<(Instant, u64)>, waiting_bytes: &mut u64, request: &Queued) {
        *waiting_bytes -= request.bytes;
        if let Some(deadline) = request.deadline {
            deadlines.remove(&(deadline, request.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::job::{Call, Reply};
    use super::super::slot::Slot;
    use super::*;

    fn request(id: u64, bytes: u64, deadline: Option<Instant>, get: bool) -> Queued {
        let job = if get {
            Job::Get(Call { items: Vec::new(), reply: Reply::Future(Arc::new(Slot::new())) })
        } else {
            Job::Flush(Reply::Future(Arc::new(Slot::new())))
        };
        Queued { id, deadline, objects: 1, bytes, job }
    }

    fn queue(requests: impl IntoIterator<Item = Queued>) -> RequestQueue {
        let mut queue = RequestQueue::default();
        requests.into_iter().for_each(|request| queue.push(request));
        queue
    }

    fn ids(taken: &[Queued]) -> Vec<u64> {
        taken.iter().map(|request| request.id).collect()
    }

    #[test]
    fn small_requests_of_one_operation_are_joined() {
        let now = Instant::now();
        let gets = [true, true, false, true];
        let mut queue = queue((1..).zip(gets).map(|(id, get)| request(id, 10, None, get)));
        for expected in [&[1, 2][..], &[3], &[4]] {
            let (id, taken) = queue.take(now, u64::MAX).unwrap();
            assert_eq!((id, &ids(&taken)[..]), (expected[0], expected));
        }
        assert_eq!((queue.running(), queue.running_bytes(), queue.bytes()), (4, 40, 40));
        assert_eq!(queue.ended(1), 2);
        assert!(queue.take(now, u64::MAX).is_none() && !queue.is_idle());
    }

    #[test]
    fn large_requests_are_not_joined() {
        let bytes = MAX_JOINED_BYTES / 2 + 1;
        let mut large = queue((1..4).map(|id| request(id, bytes, None, true)));
        assert_eq!(ids(&large.take(Instant::now(), u64::MAX).unwrap().1), [1]);
        let many = MAX_JOINED_OBJECTS as u64 + 1;
        let mut many = queue((1..=many).map(|id| request(id, 1, None, true)));
        assert_eq!(many.take(Instant::now(), u64::MAX).unwrap().1.len(), MAX_JOINED_OBJECTS);
    }

    #[test]
    fn a_window_limits_what_runs_and_lets_one_run() {
        let now = Instant::now();
        let mut queue = queue(
            [10, 3, 3, 3].into_iter().zip(1..).map(|(bytes, id)| request(id, bytes, None, true)),
        );
        assert_eq!(ids(&queue.take(now, 6).unwrap().1), [1], "it is longer than the window");
        assert!(!queue.can_take(6) && queue.take(now, 6).is_none());
        queue.ended(1);
        assert_eq!(ids(&queue.take(now, 6).unwrap().1), [2, 3]);
        assert!(!queue.can_take(6) && queue.can_take(9));
        assert_eq!(ids(&queue.take(now, 9).unwrap().1), [4]);
    }

    #[test]
    fn requests_expire_at_their_deadlines() {
        let now = Instant::now();
        let at = |millis| Some(now + Duration::from_millis(millis));
        let mut queue = queue(
            [at(5), None, at(3), at(9)]
                .into_iter()
                .zip(1..)
                .map(|(deadline, id)| request(id, 7, deadline, true)),
        );
        assert_eq!(queue.next_deadline(), at(3));
        assert!(queue.take_expired(now).is_empty());
        assert_eq!(ids(&queue.take_expired(at(5).unwrap())), [3, 1]);
        assert_eq!((queue.next_deadline(), queue.bytes()), (at(9), 14));
        assert_eq!(queue.take_one(4).unwrap().id, 4);
        assert!(queue.take_one(4).is_none() && queue.next_deadline().is_none());
        assert_eq!(queue.take_all().len(), 1);
        assert!(queue.is_idle() && queue.bytes() == 0);
    }
}
