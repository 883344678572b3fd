//! Recordings in the formats of others: asciicast v3, JSON lines, text, bytes.

mod asciicast;
pub(crate) mod forwards;
mod json_lines;
pub(crate) mod mark;
pub(crate) mod marks;
pub(crate) mod notice;
mod plain;
pub(crate) mod ran;
pub(crate) mod screen;
mod text;
mod title;
mod transcript;

pub(crate) use asciicast::Asciicast;
pub(crate) use json_lines::{damage_line, json_line};
pub(crate) use plain::Plain;
pub(crate) use text::{
    ExportText, content_end_text, damage_text, event_text, gap_line, redacted_text, seconds,
};
pub(crate) use title::Title;
pub(crate) use transcript::TimedLine;

#[cfg(test)]
mod tests {
    use holdfast_protocol::escape::is_treacherous;
    use holdfast_protocol::ids::{DeviceId, DeviceName, Login, SessionId, UserName};
    use holdfast_protocol::recording::chain::DigestPoint;
    use holdfast_protocol::recording::record::{
        ContentEnds, Event, Gap, GapReason, Record, RecordedBytes, Stream,
    };
    use serde_json::Value;

    use super::*;
    use crate::clock::Timestamp;
    use crate::model::role::Ability;
    use crate::store::SessionFacts;

    const HOSTILE: &str = "x\r\n\u{1b}[2J\u{9b}31m\u{85}\u{202e}\u{2028}\u{e0041}\u{7f}\"z";

    fn title() -> Title {
        Title {
            session: SessionFacts {
                user_id: None,
                id: SessionId([1; 16]),
                user: UserName::new("alice").unwrap(),
                device: DeviceId([2; 16]),
                device_name: DeviceName::new("cam").unwrap(),
                login: Login::new("pi").unwrap(),
                kind: Ability::Exec,
                command: Some("true".to_owned()),
                client: "203.0.113.9:50022".parse().unwrap(),
                started: Timestamp(0),
                terminal: false,
            },
            terminal: None,
        }
    }

    fn record(event: Event<'_>) -> Record<'_> {
        Record { delta: 0, event }
    }

    #[test]
    fn exports_hold_hostile_text_as_harmless_data() {
        let records = [
            record(Event::Data(
                Stream::Stdout,
                RecordedBytes(HOSTILE.as_bytes()),
            )),
            record(Event::CommandsUnavailable(HOSTILE)),
        ];
        let title = title();
        let mut cast = Asciicast::new(title.clone());
        let mut plain = Plain::new(title.clone());
        for record in &records {
            let json = String::from_utf8(json_line(1, record, None, &title)).unwrap();
            let mut lines = vec![json.clone(), cast.lines(1, record, None)];
            let text = plain.lines(record, None);
            lines.extend(text.iter().map(|line| format!("{line}\n")));
            for text in lines.iter().filter(|text| !text.is_empty()) {
                let line = text.strip_suffix('\n').unwrap();
                assert!(!line.contains(is_treacherous), "{line:?}");
            }
            let Event::CommandsUnavailable(_) = record.event else {
                // The session's output is data: a player gets every byte of it.
                let event: Value = serde_json::from_str(&lines[1]).unwrap();
                assert_eq!(event[2], HOSTILE.replace('\n', "\r\n"));
                continue;
            };
            let read: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["reason"], HOSTILE);
        }
        for line in plain.finish() {
            assert!(!line.contains(is_treacherous), "{line:?}");
        }
    }

    #[test]
    fn claims_of_the_device_have_the_mark_too() {
        let gap = Event::Gap(Gap {
            micros: 1,
            bytes: [0, 5, 0],
            after: [DigestPoint::default(); 3],
            records: 0,
            why: GapReason::Medium,
        });
        let ends = Event::ContentEnds(ContentEnds {
            stream: Stream::Stdout,
            from: DigestPoint::default(),
        });
        let unfollowed = Event::FilesUnfollowed("no reason");
        for (event, is_in_casts) in [(gap, true), (ends, true), (unfollowed, false)] {
            let record = record(event);
            let mark = mark::Mark::Unproved;
            let shown = |mark| {
                let mut cast = Asciicast::new(title());
                let cast = cast.lines(1, &record, mark);
                (Plain::new(title()).lines(&record, mark), cast)
            };
            let ((lines, cast), (marked, marked_cast)) = (shown(None), shown(Some(mark)));
            assert_eq!((lines.len(), cast.is_empty()), (1, !is_in_casts));
            assert_eq!(marked, [format!("[not proved] {}", lines[0])]);
            let expected = cast.replace("\"m\", \"", "\"m\", \"[not proved] ");
            assert_eq!(marked_cast, expected);
        }
    }

    #[test]
    fn a_line_of_output_has_the_time_of_its_first_byte() {
        let shown = |micros, bytes: &'static [u8], mark| {
            let event = Event::Data(Stream::Stdout, RecordedBytes(bytes));
            (micros, record(event), mark)
        };
        let mark = Some(mark::Mark::Unproved);
        let records = [
            shown(1, b"be", None),
            shown(5, b"gun\nsecond\nthi", None),
            shown(7, b"rd\n", None),
            shown(8, b"mar", mark),
            shown(9, b"ked\n", mark),
            shown(11, b"rest", mark),
        ];
        let mut plain = Plain::new(title());
        let mut lines = Vec::new();
        for (micros, record, mark) in &records {
            lines.extend(plain.timed_lines(*micros, record, *mark));
        }
        lines.extend(plain.timed_finish());
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (line.micros, line.text.as_str()))
            .collect();
        let wanted = [
            (1, "begun"),
            (5, "second"),
            (5, "third"),
            (8, "[not proved] marked"),
            (11, "[not proved] rest"),
        ];
        assert_eq!(lines, wanted);
    }
}
