//! Recordings on their way to the relay.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_agent::os::runtime;
use edge_agent::os::state::StateDir;
use edge_agent::recording::upload;
use edge_agent::service::status::{self, Question};
use edge_agent::service::status_socket;
use edge_agent::service::upgrade::trial::Upgrades;
use edge_agent::tunnel::membership::Membership;
use edge_agent::tunnel::status::TunnelStatus;
use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::identity::roster::{RelayEntry, Roster};
use holdfast_protocol::ids::{DeviceId, DeviceName, PublicKey};
use holdfast_protocol::limits::MINOR_VERSION;
use holdfast_protocol::recording::reader::ReadVerdict;
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::recording::scan::{ExpectedSegment, SegmentScan};
use holdfast_protocol::recording::segment::SegmentLink;
use holdfast_protocol::recording::upload::UploadPolicy;
use holdfast_protocol::wire::{
    OfferedSegment, RecordingMode, SegmentHeld, UploadAnswer, UploadMessage,
};

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::{Played, recorded, segments};
use crate::harness::device::Device;
use crate::harness::{Pair, exec, run, with_pty};

/// A relay's end of an upload stream, which keeps what it gets.
struct Store {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    reader: ControlReader<UploadMessage>,
    rest: Vec<u8>,
    offered: Option<OfferedSegment>,
    segments: BTreeMap<u32, Vec<u8>>,
    finished: u32,
    stored: u32,
}

impl Store {
    /// Starts the device's end, to a relay of this minor version.
    async fn with_upload(pair: &Pair, minor: u16) -> (impl Sized + use<>, Self) {
        let recorder = Arc::clone(pair.sessions.recorder());
        let upload = runtime::spawn(upload::run(recorder, pair.tunnel.clone(), minor));
        (upload, Self::new(pair).await)
    }

    async fn new(pair: &Pair) -> Self {
        let (send, receive) = pair.relay.accept_bi().await.unwrap();
        Self {
            send,
            receive,
            reader: ControlReader::default(),
            rest: Vec::new(),
            offered: None,
            segments: BTreeMap::new(),
            finished: 0,
            stored: 0,
        }
    }

    /// That a session has ended is reported at once, whatever the policy. Nothing is uploaded before it was requested.
    async fn hears_of_the_end_alone(&mut self) {
        let UploadMessage::Finished(finished) = self.next().await else {
            panic!("an upload before it was requested");
        };
        self.answer(UploadAnswer::Noted(finished.session)).await;
        let too_soon = async {
            let message = self.next().await;
            panic!("{message:?} before it was requested");
        };
        let a_while = async {
            smol::Timer::after(Duration::from_millis(300)).await;
        };
        futures_lite::future::or(too_soon, a_while).await;
    }

    async fn next(&mut self) -> UploadMessage {
        loop {
            let mut input = self.rest.as_slice();
            let message = self.reader.read(&mut input).unwrap();
            self.rest = input.to_vec();
            if let Some(message) = message {
                return message;
            }
            let chunk = self
                .receive
                .read_chunk(1 << 16, true)
                .await
                .unwrap()
                .unwrap();
            self.rest.extend_from_slice(&chunk.bytes);
        }
    }

    async fn answer(&mut self, answer: UploadAnswer) {
        let bytes = control::encode(&answer).unwrap();
        self.send.write_all(&bytes).await.unwrap();
    }

    /// Answers one message as a relay does.
    async fn serve(&mut self) {
        match self.next().await {
            UploadMessage::Finished(finished) => {
                self.finished += 1;
                self.answer(UploadAnswer::Noted(finished.session)).await;
            }
            UploadMessage::Gone(gone) => self.answer(UploadAnswer::Noted(gone.session)).await,
            UploadMessage::Inventory(part) => self.answer(UploadAnswer::Listed(part.part)).await,
            UploadMessage::Offer(offer) => {
                self.offered = Some(offer);
                self.say_how_far().await;
            }
            UploadMessage::Bytes(bytes) => {
                let offer = self.offered.clone().unwrap();
                let held = self.segments.entry(offer.segment).or_default();
                assert_eq!(
                    held.len() as u64,
                    bytes.offset,
                    "sent twice, or with a hole"
                );
                held.extend_from_slice(&bytes.bytes);
                self.say_how_far().await;
            }
        }
    }

    async fn say_how_far(&mut self) {
        let offer = self.offered.clone().unwrap();
        let bytes = self.segments.entry(offer.segment).or_default();
        let offset = bytes.len() as u64;
        let whole = offset == offer.length;
        let held = SegmentHeld {
            session: offer.session,
            segment: offer.segment,
            offset,
            hash: if whole {
                link_of(bytes)
            } else {
                SegmentLink([0; 32])
            },
        };
        self.answer(UploadAnswer::Have(held.clone())).await;
        if whole && offer.closed {
            self.stored += 1;
            self.answer(UploadAnswer::Stored(held)).await;
        }
    }
}

fn link_of(bytes: &[u8]) -> SegmentLink {
    let mut scan = SegmentScan::new(ExpectedSegment {
        place: None,
        before: None,
    });
    let mut input = bytes;
    while scan.read(&mut input).unwrap().is_some() {}
    scan.link()
}

async fn until_empty(folder: &std::path::Path, number: u8) {
    while !segments(folder, number).is_empty() {
        smol::Timer::after(Duration::from_millis(10)).await;
    }
}

/// 3 MB that do not compress.
const NOISE: &str = "head -c 3000000 /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null";

#[test]
fn a_recording_leaves_the_device_only_when_the_relay_has_it() {
    run(async {
        let pair = Pair::recorded(Device::new(), |_| {}).await;
        let folder = pair.device.path("spool");
        let open = recorded(1, RecordingMode::Strict, exec(NOISE));
        let outcome = pair.to_end(open).await;
        assert_eq!(outcome.stdout.len(), 3_000_000);
        pair.live(0).await;

        let recorder = Arc::clone(pair.sessions.recorder());
        let run = upload::run(Arc::clone(&recorder), pair.tunnel.clone(), MINOR_VERSION);
        let first = runtime::spawn(run);
        let mut store = Store::new(&pair).await;
        // The stream is lost in the middle of the first segment.
        while store
            .segments
            .get(&0)
            .is_none_or(|held| held.len() < 100_000)
        {
            store.serve().await;
        }
        drop(first);
        assert!(
            segments(&folder, 1).len() >= 3,
            "removed before it was stored"
        );

        let _second = runtime::spawn(upload::run(recorder, pair.tunnel.clone(), MINOR_VERSION));
        let mut again = Store::new(&pair).await;
        again.segments = std::mem::take(&mut store.segments);
        again.finished = store.finished;
        while again.stored < 3 || again.finished == 0 {
            again.serve().await;
        }
        until_empty(&folder, 1).await;
        let played = Played::of_segments(1, again.segments.into_values());
        let why = EndReason::Exited;
        assert_eq!(played.verdict, Some(ReadVerdict::Complete { why }));
        assert!(played.data[1] == outcome.stdout);
        let status = pair.sessions.recorder().status();
        assert_eq!((status.used, status.waiting), (0, 0));
    });
}

#[test]
fn a_relay_that_stores_something_else_does_not_get_it_removed() {
    run(async {
        let pair = Pair::recorded(Device::new(), |_| {}).await;
        let folder = pair.device.path("spool");
        pair.to_end(recorded(1, RecordingMode::Strict, exec("echo x")))
            .await;
        pair.live(0).await;
        let (_upload, mut store) = Store::with_upload(&pair, upload::UPLOAD_MINOR).await;
        loop {
            match store.next().await {
                UploadMessage::Offer(offer) => {
                    let held = SegmentHeld {
                        session: offer.session,
                        segment: offer.segment,
                        offset: offer.length,
                        hash: SegmentLink([1; 32]),
                    };
                    store.answer(UploadAnswer::Stored(held)).await;
                    break;
                }
                UploadMessage::Finished(finished) => {
                    store.answer(UploadAnswer::Noted(finished.session)).await;
                }
                other => panic!("{other:?}"),
            }
        }
        loop {
            let names = segments(&folder, 1);
            let [name] = names.as_slice() else {
                panic!("{names:?}")
            };
            // It is set aside, not removed.
            if name.extension().is_some_and(|kind| kind == "bad") {
                assert!(fs::metadata(name).unwrap().len() > 0);
                break;
            }
            smol::Timer::after(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn an_upload_waits_behind_a_terminal() {
    run(async {
        let pair = Pair::recorded(Device::new(), |_| {}).await;
        pair.to_end(recorded(1, RecordingMode::Strict, exec(NOISE)))
            .await;
        pair.live(0).await;
        let (_upload, mut store) = Store::with_upload(&pair, MINOR_VERSION).await;
        let mut terminal = pair.open(with_pty(exec("cat"))).await;
        terminal.write(b"ready\n").await;
        terminal.until("ready").await;
        let typing = async {
            let mut rounds = 0;
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                terminal.write(format!("line {rounds}\n").as_bytes()).await;
                terminal.until(&format!("line {rounds}")).await;
                rounds += 1;
                smol::Timer::after(Duration::from_millis(50)).await;
            }
            rounds
        };
        let mut during = 0;
        let serving = async {
            loop {
                store.serve().await;
                during = store.segments.values().map(Vec::len).sum::<usize>();
            }
        };
        let rounds = futures_lite::future::or(typing, serving).await;
        assert!(rounds > 10, "{rounds}");
        assert!(
            during < 100_000,
            "{during} bytes went up beside the terminal"
        );
        while store.stored < 3 {
            store.serve().await;
        }
    });
}

/// A membership of a cluster whose key is known to this test alone.
fn membership() -> Membership {
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let public = PublicKey(key.public_key().as_ref().try_into().unwrap());
    let roster = Roster {
        cluster: public,
        epoch: 1,
        relays: vec![RelayEntry {
            address: "relay.example.com:4433".to_owned(),
            key: public,
        }],
        recording: None,
    };
    let signed = roster.seal(|bytes| key.sign(bytes).as_ref().try_into().unwrap());
    let name = DeviceName::new("kitchen-cam").unwrap();
    Membership::new(DeviceId([4; 16]), name, signed).unwrap()
}

#[test]
fn manual_uploads_start_when_they_are_requested() {
    run(async {
        let pair = Pair::recorded(Device::new(), |config| {
            config.upload.policy = UploadPolicy::Manual;
        })
        .await;
        let state = StateDir::create_or_open(&pair.device.path("state")).unwrap();
        let tunnel = TunnelStatus::new(&membership());
        let upgrades = Arc::new(Upgrades::at_start(&pair.device.path("state")).unwrap());
        status_socket::serve(&state, tunnel, Arc::clone(&pair.sessions), upgrades);
        pair.to_end(recorded(1, RecordingMode::Strict, exec("echo x")))
            .await;
        pair.live(0).await;
        let (_upload, mut store) = Store::with_upload(&pair, upload::UPLOAD_MINOR).await;
        store.hears_of_the_end_alone().await;

        let state = Arc::new(state);
        let ask = |question| {
            let state = Arc::clone(&state);
            smol::unblock(move || status::ask(&state, question).unwrap().unwrap())
        };
        let spool = ask(Question::Status).await.spool.unwrap();
        assert_eq!((spool.waiting, spool.recorded), (1, 2));
        ask(Question::Upload).await;
        while store.stored == 0 {
            store.serve().await;
        }
        until_empty(&pair.device.path("spool"), 1).await;
        let shown = ask(Question::Status).await.to_string();
        assert!(shown.contains("spool: 0.0 of 64.0 MiB"), "{shown}");

        // What comes later was not requested.
        pair.to_end(recorded(2, RecordingMode::Strict, exec("echo x")))
            .await;
        store.hears_of_the_end_alone().await;
    });
}
