//! The notes of sessions that go on.

use super::*;

const OTHER: SessionId = SessionId([0xa5; 16]);

#[tokio::test]
async fn sessions_are_noted_when_something_has_passed() {
    let bed = Fixture::new().await;
    let (_guard, _, watched) = bed.begin().await;
    let (_other, _, quiet) = bed.begin_as(OTHER).await;
    let mut noted = NotedSessions::new();
    bed.recordings.note(&mut noted).await.unwrap();
    assert_eq!(noted.len(), 2);
    watched.pass(Stream::Stdout, b"one ", 0);
    bed.recordings.note(&mut noted).await.unwrap();
    let first = bed.facts().await.seen;
    assert_eq!(first, watched.seen().streams);
    watched.pass(Stream::Stdout, b"two ", 0);
    assert_ne!(first, watched.seen().streams);
    bed.recordings.note(&mut noted).await.unwrap();
    assert_eq!(bed.facts().await.seen, watched.seen().streams);
    for watched in [watched, quiet] {
        let over = bed.recordings.over(&watched, exited(), false);
        over.await.unwrap();
    }
    bed.recordings.note(&mut noted).await.unwrap();
    assert_eq!(noted.len(), 0, "nothing is kept of what is over");
}

/// Covers a note that is made while its session ends, and comes after it.
#[tokio::test]
async fn late_note_changes_nothing_of_what_is_over() {
    let bed = Fixture::new().await;
    let (_guard, _, watched) = bed.begin().await;
    watched.pass(Stream::Stdout, b"early ", 0);
    let early = watched.seen();
    watched.pass(Stream::Stdout, b"late", 0);
    let over = bed.recordings.over(&watched, exited(), false);
    over.await.unwrap();
    let late = async |tx: &mut Tx| tx.recording_seen(SESSION, &early).await;
    bed.store.change(late).await.unwrap();
    assert_eq!(bed.facts().await.seen, watched.seen().streams);
}
