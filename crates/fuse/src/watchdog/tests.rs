//! The watchdog before a store that hangs when it is told to.

use std::sync::mpsc;
use std::time::Instant;

use super::*;

/// Sends the errno that it was refused with.
struct Reply(mpsc::Sender<i32>);

impl Refuse for Reply {
    fn refuse(self, errno: i32) {
        let _ = self.0.send(errno);
    }
}

/// A store whose calls hang while the gate is locked.
#[derive(Clone, Default)]
struct Store(Arc<(Mutex<bool>, Condvar)>);

impl Store {
    fn hang(&self, hang: bool) {
        *lock(&self.0.0) = hang;
        self.0.1.notify_all();
    }
    fn touch(&self) {
        drop(self.0.1.wait_while(lock(&self.0.0), |hang| *hang).unwrap());
    }
}

const STUCK: Duration = Duration::from_millis(400);

fn watchdog(threads: usize, store: &Store) -> Arc<Watchdog<Reply>> {
    let watchdog = Watchdog::new(threads, STUCK);
    let store = store.clone();
    watchdog
        .start(move || {
            store.touch();
            true
        })
        .unwrap();
    watchdog
}

/// A request on a thread of its own; the errno it was refused with, or 0.
fn request(dog: &Arc<Watchdog<Reply>>, store: &Store, patience: Patience) -> mpsc::Receiver<i32> {
    let (dog, store) = (Arc::clone(dog), store.clone());
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || {
        if let Outcome::Ended(reply, ()) = dog.call(Reply(sender), patience, |_| store.touch()) {
            reply.refuse(0);
        }
    });
    answer
}

fn eventually(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_store_that_answers_is_left_alone() {
    let store = Store::default();
    let dog = watchdog(3, &store);
    for _ in 0..3 {
        assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(0));
    }
    assert_eq!(dog.under_way(), 0);
    dog.stop();
}

#[test]
fn a_call_that_hangs_is_answered_and_its_late_result_dropped() {
    let store = Store::default();
    let dog = watchdog(16, &store);
    store.hang(true);
    let begin = Instant::now();
    let answer = request(&dog, &store, Patience::Short);
    assert_eq!(answer.recv(), Ok(libc::EIO));
    assert!(begin.elapsed() >= STUCK);
    assert_eq!(dog.under_way(), 0);
    store.hang(false);
    assert!(answer.recv().is_err(), "answered twice");
    eventually(|| dog.stuck.load(Ordering::SeqCst) == 0 && dog.inside.load(Ordering::SeqCst) == 0);
    dog.stop();
}

#[test]
fn more_requests_than_threads_are_all_answered_and_the_breaker_closes_again() {
    let store = Store::default();
    let dog = watchdog(8, &store);
    store.hang(true);
    // The eighth finds no room and waits outside.
    let answers: Vec<_> = (0..8).map(|_| request(&dog, &store, Patience::Short)).collect();
    for answer in &answers {
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(libc::EIO));
    }
    eventually(|| dog.open.load(Ordering::SeqCst));
    // The thread that waited reads on, and refuses without entering.
    let at_once = thread::scope(|scope| {
        scope
            .spawn(|| {
                PLACE.set((dog.id, 7));
                let (sender, answer) = mpsc::channel();
                let outcome = dog.call(Reply(sender), Patience::Short, |_| store.touch());
                assert!(matches!(outcome, Outcome::Refused));
                answer.recv()
            })
            .join()
            .unwrap()
    });
    assert_eq!(at_once, Ok(libc::EIO));
    store.hang(false);
    eventually(|| !dog.open.load(Ordering::SeqCst));
    eventually(|| dog.inside.load(Ordering::SeqCst) == 0);
    dog.stop();
}

#[test]
fn one_call_given_up_without_an_answer_to_the_probe_opens_the_breaker() {
    let store = Store::default();
    let dog = watchdog(16, &store);
    store.hang(true);
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(libc::EIO));
    eventually(|| dog.open.load(Ordering::SeqCst));
    let begin = Instant::now();
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(libc::EIO));
    assert!(begin.elapsed() < STUCK / 2, "it waited although the store is known to be dead");
    store.hang(false);
    eventually(|| !dog.open.load(Ordering::SeqCst));
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(0));
    dog.stop();
}

#[test]
fn a_dead_store_holds_nobody_who_came_later() {
    let store = Store::default();
    let dog = watchdog(16, &store);
    store.hang(true);
    let begin = Instant::now();
    let first = request(&dog, &store, Patience::Short);
    thread::sleep(STUCK * 3 / 4);
    let later = request(&dog, &store, Patience::Short);
    assert_eq!(first.recv(), Ok(libc::EIO));
    assert_eq!(later.recv(), Ok(libc::EIO));
    assert!(begin.elapsed() < STUCK * 3 / 2, "the later one had its full time");
    store.hang(false);
    dog.stop();
}

#[test]
fn one_file_that_hangs_leaves_the_rest_open() {
    let (store, file) = (Store::default(), Store::default());
    let dog = watchdog(16, &store);
    file.hang(true);
    assert_eq!(request(&dog, &file, Patience::Short).recv(), Ok(libc::EIO));
    thread::sleep(STUCK);
    assert!(!dog.open.load(Ordering::SeqCst));
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(0));
    file.hang(false);
    dog.stop();
}

#[test]
fn a_session_whose_threads_hang_refuses_until_one_comes_back() {
    let (store, file) = (Store::default(), Store::default());
    let dog = watchdog(4, &store);
    file.hang(true);
    let answers: Vec<_> = (0..3).map(|_| request(&dog, &file, Patience::Short)).collect();
    for answer in &answers {
        assert_eq!(answer.recv(), Ok(libc::EIO));
    }
    // Probes are answered, and nobody is left who could enter.
    thread::sleep(STUCK);
    let last = |store: &Store| {
        let (sender, answer) = mpsc::channel();
        let (dog, store) = (Arc::clone(&dog), store.clone());
        thread::spawn(move || {
            PLACE.set((dog.id, 3));
            if let Outcome::Ended(reply, ()) = dog.call(Reply(sender), Patience::Short, |_| store.touch()) {
                reply.refuse(0);
            }
        });
        answer.recv_timeout(Duration::from_secs(20))
    };
    assert_eq!(last(&store), Ok(libc::EIO));
    file.hang(false);
    eventually(|| last(&store) == Ok(0));
    dog.stop();
}

thread_local! {
    /// Whether something was refused on this thread.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Sends the thread on which it was refused.
struct Marked(mpsc::Sender<thread::ThreadId>);

impl Refuse for Marked {
    fn refuse(self, _: i32) {
        REFUSED.set(true);
        let _ = self.0.send(thread::current().id());
    }
}

/// Keeps which thread said that it refuses, and whether it had.
struct Order(Mutex<Vec<(thread::ThreadId, bool)>>);

impl log::Log for Order {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }
    fn log(&self, record: &log::Record) {
        if record.args().to_string().contains("EIO for") {
            lock(&self.0).push((thread::current().id(), REFUSED.get()));
        }
    }
    fn flush(&self) {}
}

static ORDER: Order = Order(Mutex::new(Vec::new()));

#[test]
fn whoever_waits_is_refused_before_the_log_has_it() {
    log::set_logger(&ORDER).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let dog = Watchdog::new(2, STUCK);
    dog.start(|| true).unwrap();
    let (sender, answer) = mpsc::channel();
    let watching = match dog.call(Marked(sender), Patience::Short, |_| answer.recv()) {
        Outcome::Late(watching) => watching.unwrap(),
        _ => panic!("it was not given up"),
    };
    let said = || lock(&ORDER.0).iter().find(|(thread, _)| *thread == watching).copied();
    eventually(|| said().is_some());
    assert_eq!(said(), Some((watching, true)));
    dog.stop();
}

#[test]
fn a_long_sync_is_awaited_while_the_store_answers_otherwise() {
    let (store, disk) = (Store::default(), Store::default());
    let dog = watchdog(4, &store);
    disk.hang(true);
    let sync = request(&dog, &disk, Patience::Long);
    assert!(sync.recv_timeout(STUCK * 4).is_err(), "given up although the store answers");
    disk.hang(false);
    assert_eq!(sync.recv_timeout(Duration::from_secs(20)), Ok(0));
    dog.stop();
}

#[test]
fn a_sync_into_a_dead_store_is_given_up() {
    let store = Store::default();
    let dog = watchdog(4, &store);
    store.hang(true);
    let sync = request(&dog, &store, Patience::Long);
    assert_eq!(sync.recv_timeout(STUCK * 8), Ok(libc::EIO));
    store.hang(false);
    dog.stop();
}

#[test]
fn a_panic_costs_an_error_and_no_thread() {
    let dog = watchdog(2, &Store::default());
    let (sender, answer) = mpsc::channel();
    let outcome = dog.call(Reply(sender), Patience::Short, |_| panic!("a bug"));
    assert!(matches!(outcome, Outcome::Failed));
    assert_eq!(answer.recv(), Ok(libc::EIO));
    assert_eq!(dog.inside.load(Ordering::SeqCst), 0);
    dog.stop();
}

#[test]
fn a_reply_that_was_given_up_is_not_there_to_be_filled() {
    let store = Store::default();
    let dog = watchdog(2, &store);
    let (sender, answer) = mpsc::channel();
    let outcome = dog.call(Reply(sender), Patience::Short, |slot| {
        assert!(slot.with(|_| ()).is_some());
        assert_eq!(answer.recv(), Ok(libc::EIO));
        slot.with(|_| ())
    });
    assert!(matches!(outcome, Outcome::Late(None)));
    dog.stop();
}

#[test]
fn what_is_shut_waits_for_calls_under_way_and_never_opens_again() {
    let store = Store::default();
    let dog = watchdog(4, &store);
    store.hang(true);
    let under_way = request(&dog, &store, Patience::Short);
    eventually(|| dog.under_way() == 1);
    let (shutting, (tell, shut)) = (Arc::clone(&dog), mpsc::channel());
    thread::spawn(move || {
        shutting.shut();
        tell.send(()).unwrap();
    });
    eventually(|| dog.open.load(Ordering::SeqCst));
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(libc::EIO));
    assert!(shut.try_recv().is_err());
    store.hang(false);
    assert_eq!(under_way.recv(), Ok(0));
    shut.recv_timeout(Duration::from_secs(20)).unwrap();
    thread::sleep(STUCK);
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(libc::EIO));
    dog.stop();
}

#[test]
fn how_long_the_store_kept_calls_waiting_is_told_once() {
    let store = Store::default();
    let dog = watchdog(4, &store);
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(0));
    assert!(dog.health().waited < STUCK / 2 && !dog.health().refusing);
    store.hang(true);
    assert_eq!(request(&dog, &store, Patience::Short).recv(), Ok(libc::EIO));
    eventually(|| dog.open.load(Ordering::SeqCst));
    let ill = dog.health();
    assert!(ill.waited >= STUCK && ill.given_up == 1 && ill.refusing, "{ill:?}");
    store.hang(false);
    eventually(|| dog.health() == Health::default());
    dog.stop();
}
