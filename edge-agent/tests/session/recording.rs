//! Recorded sessions: what the reader finds is what was sent, and what happens where nothing can be written.

mod cost;
mod crash;
mod forwards;
mod full;
mod upload;

use std::fs;
use std::path::{Path, PathBuf};

use edge_agent::recording::RecorderConfig;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::MIN_SPOOL_BYTES;
use holdfast_protocol::recording::chain::{Chain, ChainKey};
use holdfast_protocol::recording::reader::{ReadVerdict, RecordingReader};
use holdfast_protocol::recording::record::{EndReason, Event, Gap, Stream};
use holdfast_protocol::wire::{
    Exit, Open, ProcessRequest, RecordingMode, RecordingTerms, SessionRefusal, Signal, StdinMode,
    WindowSize,
};

use crate::harness::device::Device;
use crate::harness::{Heard, Pair, exec, open, run, secret, with_pty};

const KEY: ChainKey = ChainKey([9; 32]);

/// `open`, recorded, as session `number`.
fn recorded(number: u8, mode: RecordingMode, open: Open) -> Open {
    Open {
        session: SessionId([number; 16]),
        recording: Some(RecordingTerms {
            mode,
            stdin: StdinMode::Redact,
            key: KEY,
            recover: false,
        }),
        ..open
    }
}

/// A device that may keep as little as is allowed.
async fn with_least_spool() -> Pair {
    let budget = |config: &mut RecorderConfig| config.max_bytes = MIN_SPOOL_BYTES;
    Pair::recorded(Device::new(), budget).await
}

/// The content of a recording.
#[derive(Debug, Default)]
struct Played {
    verdict: Option<ReadVerdict>,
    /// The bytes of the three streams that are shown.
    data: [Vec<u8>; 3],
    /// Lengths of what was redacted.
    redacted: Vec<u32>,
    gaps: Vec<Gap>,
    files: Vec<String>,
    /// Everything else, by its `Debug`.
    others: Vec<String>,
    command: Vec<u8>,
}

impl Played {
    /// The recording of a session, when the agent has stopped, which ends like this and lacks nothing before.
    async fn complete(pair: &Pair, number: u8, why: EndReason) -> Self {
        pair.sessions.recorder().stop().await;
        let played = Self::of(&pair.device.path("spool"), number);
        assert_eq!(played.verdict, Some(ReadVerdict::Complete { why }));
        played
    }

    /// The recording of a session, of the segments that are in `folder`.
    fn of(folder: &Path, number: u8) -> Self {
        let segments = segments(folder, number);
        Self::of_segments(number, segments.iter().map(|path| fs::read(path).unwrap()))
    }

    fn of_segments(number: u8, segments: impl Iterator<Item = Vec<u8>>) -> Self {
        let secrets = [secret()];
        let mut reader = RecordingReader::new(SessionId([number; 16]), &secrets);
        let mut played = Self::default();
        for bytes in segments {
            let read = reader.read_segment(&bytes, &mut |_, record| played.take(&record.event));
            assert_eq!(read, Ok(()));
        }
        played.verdict = Some(reader.verdict());
        played
    }

    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Data(stream, bytes) | Event::Part(stream, bytes) => {
                self.data[stream.index()].extend_from_slice(bytes.0);
            }
            Event::Redacted(redacted) => self.redacted.push(redacted.length),
            Event::File(file) => self.files.push(format!(
                "{:?} {} {} {} {}",
                file.kind,
                String::from_utf8_lossy(file.path.0),
                String::from_utf8_lossy(file.other.map_or(&[][..], |other| other.0)),
                file.size,
                file.result,
            )),
            Event::Gap(gap) => self.gaps.push(gap.clone()),
            Event::Start(start) => {
                let terminal = start.terminal.as_ref();
                self.others.push(format!(
                    "start {} {} {} {:?} {:?}",
                    start.name,
                    start.user,
                    start.login,
                    terminal.map(|terminal| (terminal.term, terminal.size.columns)),
                    start.env,
                ));
                if let holdfast_protocol::recording::record::StartedWork::Exec { head, .. } =
                    start.work
                {
                    self.command.extend_from_slice(head.0);
                }
            }
            Event::CommandLine(more) => self.command.extend_from_slice(more.0),
            Event::End(end) => self.others.push(format!("end {:?}", end.why)),
            other => self.others.push(format!("{other:?}")),
        }
    }

    fn shown(&self, stream: Stream) -> &str {
        std::str::from_utf8(&self.data[stream.index()]).unwrap()
    }
}

fn segments(folder: &Path, number: u8) -> Vec<PathBuf> {
    let session = SessionId([number; 16]).to_string();
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&session)
        })
        .collect();
    paths.sort();
    paths
}

#[test]
fn a_recorded_command_is_what_was_sent_byte_for_byte() {
    run(async {
        let pair = Pair::new().await;
        let long = format!("cat; echo err >&2; : {}; exit 3", "x".repeat(9_000));
        let mut open = recorded(1, RecordingMode::Strict, exec(&long));
        open.env = vec![("LANG".to_owned(), "C".to_owned())];
        let mut client = pair.open(open).await;
        let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut voice, mut ear) = (client.voice, client.ear);
        let speak = async {
            voice.write(&sent).await;
            voice.say(SessionMessage::Eof).await;
        };
        let (outcome, ()) = futures_lite::future::zip(ear.outcome(), speak).await;
        assert_eq!(outcome.exit, Some(Exit::Status(3)));
        assert_eq!(outcome.stdout, sent);
        pair.live(0).await;
        let played = Played::complete(&pair, 1, EndReason::Exited).await;
        assert!(played.data[0] == sent, "stdin is another");
        assert!(played.data[1] == sent, "stdout is another");
        assert_eq!(played.shown(Stream::Stderr), "err\n");
        assert_eq!(played.command, long.as_bytes());
        let start = format!(
            "start kitchen-cam alice {} None [(\"LANG\", \"C\")]",
            crate::harness::device::login()
        );
        for wanted in [
            &*start,
            "Eof(Stdin)",
            "Eof(Stdout)",
            "Eof(Stderr)",
            "Exit(Status(3))",
            "end Exited",
        ] {
            assert!(
                played.others.iter().any(|other| other == wanted),
                "{wanted}: {played:?}"
            );
        }
        client = crate::harness::Client { voice, ear };
        drop(client);
    });
}

#[test]
fn the_digest_of_a_recording_is_that_of_the_frames_on_the_wire() {
    run(async {
        let pair = Pair::new().await;
        let open = recorded(1, RecordingMode::Strict, exec("cat >/dev/null"));
        let mut client = pair.open(open).await;
        let mut chain = Chain::new(&KEY, Stream::Stdin);
        for frame in [&b"first"[..], &[b'x'; 40_000], b"last"] {
            client.write(frame).await;
            chain.update(frame, 0);
        }
        client.say(SessionMessage::Eof).await;
        client.outcome().await;
        pair.sessions.recorder().stop().await;
        let folder = pair.device.path("spool");
        let secrets = [secret()];
        let mut reader = RecordingReader::new(SessionId([1; 16]), &secrets);
        for path in segments(&folder, 1) {
            let read = reader.read_segment(&fs::read(path).unwrap(), &mut |_, _| {});
            assert_eq!(read, Ok(()));
        }
        assert_eq!(reader.end().unwrap().streams[0], chain.point());
    });
}

#[test]
fn a_terminal_is_recorded_and_what_is_typed_unseen_is_not() {
    run(async {
        let pair = Pair::new().await;
        let script = "stty echo; echo ready; read name; stty -echo; echo password; read secret; \
                      stty echo; echo again; read last; echo $name-$last";
        let mut open = with_pty(exec(script));
        open.pty.as_mut().unwrap().modes = vec![(53, 1)];
        let mut client = pair.open(recorded(1, RecordingMode::Strict, open)).await;
        client.until("ready").await;
        client.write(b"shown\n").await;
        client.until("password").await;
        client.write(b"hunter2\n").await;
        client.until("again").await;
        client
            .say(SessionMessage::Resize(WindowSize::clamped(120, 40, 0, 0)))
            .await;
        client.say(SessionMessage::Signal(Signal::Winch)).await;
        client.write(b"visible\n").await;
        let outcome = client.outcome().await;
        assert!(outcome.stdout().contains("shown-visible"), "{outcome:?}");
        pair.sessions.recorder().stop().await;
        let played = Played::of(&pair.device.path("spool"), 1);
        assert_eq!(played.shown(Stream::Stdin), "shown\nvisible\n");
        assert_eq!(played.redacted, [8]);
        assert!(!format!("{played:?}").contains("hunter2"));
        assert!(played.shown(Stream::Stdout).contains("shown-visible"));
        let recorded_event =
            |wanted: &str| played.others.iter().any(|other| other.contains(wanted));
        for wanted in ["xterm-256color", "Resize", "Signal(Winch)"] {
            assert!(recorded_event(wanted), "{wanted}: {played:?}");
        }
        // Which of the two depends on the kernel, and on who runs this.
        assert!(
            recorded_event("CommandsUnavailable") || recorded_event("Command(Command"),
            "{played:?}"
        );
    });
}

/// A packet of SFTP.
fn packet(kind: u8, id: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = [&[kind, 0, 0, 0, id][..], &fields.concat()].concat();
    string(&body)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

fn count_packets(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<4>()
        && let Some(rest) = rest.get(u32::from_be_bytes(*length) as usize..)
    {
        (bytes, count) = (rest, count + 1);
    }
    count
}

#[test]
fn of_a_file_transfer_each_operation_is_recorded_and_no_data() {
    run(async {
        let pair = Pair::new().await;
        let sftp = open(ProcessRequest::Subsystem("sftp".to_owned()));
        let mut client = pair.open(recorded(1, RecordingMode::Strict, sftp)).await;
        let path = string(b"the-file");
        let secret = string(b"TOP SECRET");
        let mut answers = Vec::new();
        for bytes in [
            string(&[1, 0, 0, 0, 3]),
            packet(3, 1, &[&path, &0x1a_u32.to_be_bytes(), &[0; 4]]),
        ] {
            client.write(&bytes).await;
        }
        while count_packets(&answers) < 2 {
            if let Heard::Stdout(data) = client.hear().await {
                answers.extend(data);
            }
        }
        // Behind the version: length, type, request, and the handle as a string to the end.
        let version = 4 + u32::from_be_bytes(answers[..4].try_into().unwrap()) as usize;
        let handle = answers[version + 9..].to_vec();
        for bytes in [
            packet(6, 2, &[&handle, &[0; 8], &secret]),
            packet(4, 3, &[&handle]),
            packet(18, 4, &[&path, &string(b"renamed")]),
            packet(13, 5, &[&path]),
        ] {
            client.write(&bytes).await;
        }
        while count_packets(&answers) < 6 {
            if let Heard::Stdout(data) = client.hear().await {
                answers.extend(data);
            }
        }
        client.say(SessionMessage::Eof).await;
        client.outcome().await;
        let played = Played::complete(&pair, 1, EndReason::Exited).await;
        assert!(played.data.iter().all(Vec::is_empty));
        assert_eq!(
            played.files,
            [
                "Write the-file  10 0",
                "Rename the-file renamed 0 0",
                "Remove the-file  0 2"
            ]
        );
    });
}

#[test]
fn who_does_not_ask_for_a_recording_gets_none() {
    run(async {
        let pair = Pair::new().await;
        let off = recorded(1, RecordingMode::Off, exec("echo off"));
        assert_eq!(pair.to_end(off).await.stdout(), "off\n");
        assert_eq!(pair.exec("echo old relay").await.stdout(), "old relay\n");
        pair.sessions.recorder().stop().await;
        let segments = fs::read_dir(pair.device.path("spool")).unwrap();
        let mut names = segments.map(|entry| entry.unwrap().file_name());
        assert_eq!(names.find(|name| name != "boot"), None);
    });
}

#[test]
fn without_a_spool_only_who_must_be_recorded_is_refused() {
    run(async {
        let device = Device::new();
        device.write("spool", "a file where a folder should be");
        let pair = Pair::recorded(device, |_| {}).await;
        let strict = recorded(1, RecordingMode::Strict, exec("echo strict"));
        let outcome = pair.to_end(strict).await;
        let Some(SessionRefusal::RecordingUnavailable(why)) = &outcome.refused else {
            panic!("{outcome:?}");
        };
        assert!(why.contains("spool"), "{why}");
        let loose = recorded(2, RecordingMode::BestEffort, exec("echo loose"));
        assert_eq!(pair.to_end(loose).await.stdout(), "loose\n");
        let mut rescue = recorded(3, RecordingMode::Strict, exec("echo rescue"));
        rescue.recording.as_mut().unwrap().recover = true;
        assert_eq!(pair.to_end(rescue).await.stdout(), "rescue\n");
        let status = pair.sessions.recorder().status();
        assert_eq!(status.unrecorded, 2);
        assert!(status.last_trouble.unwrap().contains("not recorded"));
    });
}

#[test]
fn a_client_that_goes_away_leaves_a_whole_recording() {
    run(async {
        let pair = Pair::new().await;
        let open = recorded(1, RecordingMode::Strict, exec("echo here; sleep 1000"));
        let mut client = pair.open(open).await;
        client.until("here").await;
        client.vanish();
        pair.live(0).await;
        let played = Played::complete(&pair, 1, EndReason::ClientGone).await;
        assert_eq!(played.shown(Stream::Stdout), "here\n");
    });
}

/// Of a variable that the device does not set it keeps only the name.
#[test]
fn a_refused_value_is_in_no_recording() {
    run(async {
        let pair = Pair::recorded(Device::new(), |_| {}).await;
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let env = vec![variable("LANG", "C"), variable("API_TOKEN", "hunter2")];
        let open = Open {
            env,
            ..exec("echo ${API_TOKEN-unset}")
        };
        let outcome = pair.to_end(recorded(1, RecordingMode::Strict, open)).await;
        assert_eq!(outcome.stdout(), "unset\n");
        let played = Played::complete(&pair, 1, EndReason::Exited).await;
        let said = played.others.join("\n");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(said.contains("(\"LANG\", \"C\")"), "{said}");
        assert!(said.contains("names: [\"API_TOKEN\"]"), "{said}");
    });
}
