//! Something that all on one connection share, and that a device is asked for when it is not there: by one of those who
//! want it, while the others wait for the same answer.

use std::fmt;
use std::sync::{Arc, MutexGuard};

use tokio::sync::watch;

use crate::sync::Mutex;

/// A thing that is shared.
pub(in crate::session) trait LogShare {
    /// The parameters that a requester needs it to have.
    type Need: Clone + PartialEq;
    /// A part in it.
    type Part;
    /// Returns whether it has these parameters, and still takes another.
    fn suits(&self, need: &Self::Need) -> bool;
    /// Creates a part for one more.
    fn part(self: &Arc<Self>) -> Self::Part;
    /// Notes that another one has replaced it.
    fn replaced(&self);
}

/// The current one, and the question for the next.
pub(in crate::session) struct SharedLog<T: LogShare, E>(Mutex<LogState<T, E>>);

struct LogState<T: LogShare, E> {
    standing: Option<Arc<T>>,
    /// The question under way; the error comes here, and an answer becomes the current one. The request was given up
    /// when its other end is gone.
    asked: Option<(T::Need, watch::Receiver<Option<E>>)>,
}

impl<T: LogShare, E> Default for SharedLog<T, E> {
    fn default() -> Self {
        Self(Mutex::new(LogState {
            standing: None,
            asked: None,
        }))
    }
}

impl<T: LogShare, E> fmt::Debug for SharedLog<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<T: LogShare, E: Clone> SharedLog<T, E> {
    /// Returns a part in what suits: in the current one, or else in what `ask` gives. A caller who comes while that is
    /// under way waits for its answer, and has its error too: a device that is silent is waited for once, however many
    /// wait.
    ///
    /// # Errors
    /// The question's.
    pub(in crate::session) async fn get<F>(&self, need: T::Need, ask: F) -> Result<T::Part, E>
    where
        F: Future<Output = Result<Arc<T>, E>>,
    {
        let answered = loop {
            let mut answer = match self.turn(&need) {
                LogTurn::Part(part) => return Ok(part),
                LogTurn::Ask(answered) => break answered,
                LogTurn::Wait(answer) => answer,
                LogTurn::WaitForOther(mut over) => {
                    let _ = over.changed().await;
                    continue;
                }
            };
            // It ends without an error too: then there is a current one, or the question was given up.
            let _ = answer.changed().await;
            let error = answer.borrow_and_update().clone();
            if let Some(error) = error {
                return Err(error);
            }
        };
        let answer = ask.await;
        let mut known = self.lock();
        known.asked = None;
        match answer {
            Ok(new) => {
                if let Some(old) = known.standing.replace(new.clone()) {
                    old.replaced();
                }
                Ok(new.part())
            }
            Err(error) => {
                answered.send_replace(Some(error.clone()));
                Err(error)
            }
        }
    }
}

/// The next thing for a requester to do.
enum LogTurn<P, E> {
    /// Nothing: this is theirs.
    Part(P),
    /// Wait for the answer to their own question.
    Wait(watch::Receiver<Option<E>>),
    /// Wait until another's question is answered.
    WaitForOther(watch::Receiver<Option<E>>),
    /// Ask, and tell the others here.
    Ask(watch::Sender<Option<E>>),
}

impl<T: LogShare, E> SharedLog<T, E> {
    fn turn(&self, need: &T::Need) -> LogTurn<T::Part, E> {
        let mut known = self.lock();
        if let Some(standing) = known.standing.as_ref().filter(|it| it.suits(need)) {
            return LogTurn::Part(standing.part());
        }
        let is_asked = |(_, answer): &&(_, watch::Receiver<_>)| answer.has_changed().is_ok();
        match known.asked.as_ref().filter(is_asked) {
            Some((same, answer)) if same == need => LogTurn::Wait(answer.clone()),
            Some((_, answer)) => LogTurn::WaitForOther(answer.clone()),
            None => {
                let (sender, receiver) = watch::channel(None);
                known.asked = Some((need.clone(), receiver));
                LogTurn::Ask(sender)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogState<T, E>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;
    use crate::clock;
    use crate::session::limits::LISTEN_TIMEOUT;

    /// A recording under these terms, until it is closed.
    #[derive(Default)]
    struct Standing {
        terms: u32,
        parts: AtomicU32,
        closed: AtomicU32,
    }

    impl LogShare for Standing {
        type Need = u32;
        type Part = u32;

        fn suits(&self, need: &u32) -> bool {
            self.terms == *need && self.closed.load(Ordering::Relaxed) == 0
        }

        fn part(self: &Arc<Self>) -> u32 {
            self.parts.fetch_add(1, Ordering::Relaxed)
        }

        fn replaced(&self) {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
    }

    type Known = Arc<SharedLog<Standing, &'static str>>;

    /// Returns a device that takes so long, and then says so.
    fn device(
        known: &Known,
        terms: u32,
        takes: Duration,
        says: Result<(), &'static str>,
    ) -> impl Future<Output = Result<u32, &'static str>> + use<> {
        let known = known.clone();
        async move {
            let ask = async {
                sleep(takes).await;
                says.map(|()| {
                    Arc::new(Standing {
                        terms,
                        ..Standing::default()
                    })
                })
            };
            known.get(terms, ask).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_silent_is_waited_for_once() {
        let (known, begun) = (Known::default(), clock::instant());
        let mut forwards = JoinSet::new();
        for _ in 0..20 {
            forwards.spawn(device(&known, 1, LISTEN_TIMEOUT, Err("it does not answer")));
        }
        let answers = forwards.join_all().await;
        assert_eq!(answers, [Err("it does not answer"); 20]);
        assert_eq!(begun.elapsed().as_secs(), LISTEN_TIMEOUT.as_secs());
        // Who comes later asks anew: it may be awake by then.
        let later = device(&known, 1, Duration::ZERO, Ok(())).await;
        assert_eq!(later, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_has_a_part_in_what_comes() {
        let (known, second) = (Known::default(), Duration::from_secs(1));
        let mut forwards = JoinSet::new();
        for _ in 0..20 {
            forwards.spawn(device(&known, 1, second, Ok(())));
        }
        let mut parts = forwards.join_all().await;
        parts.sort_unstable();
        assert_eq!(parts, (0..20).map(Ok).collect::<Vec<_>>());
        // Under other terms it is another one, and the one before is notified.
        let old = known.lock().standing.clone().unwrap();
        assert_eq!(device(&known, 2, second, Ok(())).await, Ok(0));
        assert_eq!(old.closed.load(Ordering::Relaxed), 1);
        // What takes no more is none.
        known.lock().standing.as_ref().unwrap().replaced();
        assert_eq!(
            device(&known, 2, second, Err("no room")).await,
            Err("no room")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_another_one_has_their_own_answer() {
        let (known, second) = (Known::default(), Duration::from_secs(1));
        let one = tokio::spawn(device(&known, 1, second, Err("no room for one")));
        tokio::task::yield_now().await;
        let two = tokio::spawn(device(&known, 2, second, Ok(())));
        assert_eq!(one.await.unwrap(), Err("no room for one"));
        assert_eq!(two.await.unwrap(), Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn requester_may_go_away() {
        let (known, second) = (Known::default(), Duration::from_secs(1));
        let gone = tokio::spawn(device(&known, 1, second, Err("never heard")));
        tokio::task::yield_now().await;
        let left = tokio::spawn(device(&known, 1, second, Ok(())));
        tokio::task::yield_now().await;
        gone.abort();
        assert_eq!(left.await.unwrap(), Ok(0));
    }
}
