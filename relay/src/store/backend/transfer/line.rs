//! One row in the text format of PostgreSQL's `COPY`, just as the server writes it.

use std::borrow::Cow;
use std::fmt;

use holdfast_protocol::escape::EscapedBytes;
use sqlx::sqlite::{SqliteRow, SqliteValueRef};
use sqlx::{Decode, Row as _, Sqlite, TypeInfo as _, ValueRef as _};

use super::{Column, ColumnKind, Table};
use crate::store::limits::MAX_SHOWN_KEY;

/// A row.
pub(super) struct CopyLine {
    /// The row with the end of its line.
    pub(super) text: Vec<u8>,
    /// The first column, if it is a number.
    pub(super) id: Option<i64>,
    /// The place of a text with U+0000, if the row has one.
    pub(super) replaced: Option<String>,
}

/// A value that is none of its column's.
#[derive(Debug)]
pub(crate) struct CopyLineError {
    /// The table and the column, and the row by its first column.
    place: String,
    /// The expectation, and what came.
    why: String,
}

impl fmt::Display for CopyLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

/// A value as it comes from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'r> {
    Null,
    Integer(i64),
    Text(&'r [u8]),
    Bytes(&'r [u8]),
}

impl CopyLine {
    /// Returns a row of a table.
    ///
    /// # Errors
    /// [`CopyLineError`] if a value is none that its column can have.
    pub(super) fn of(table: &Table, row: &SqliteRow) -> Result<Self, CopyLineError> {
        let mut line = Self {
            text: Vec::new(),
            id: None,
            replaced: None,
        };
        let mut key = String::new();
        for (number, column) in table.columns.iter().enumerate() {
            let place = |key: &str| match number {
                0 => format!("{}.{}", table.name, column.name),
                _ => format!("{}.{} of the row {key}", table.name, column.name),
            };
            let value = row.try_get_raw(number).map_err(|error| error.to_string());
            let written = value.and_then(value_of).and_then(|value| {
                if number == 0 {
                    key = shown(value);
                    line.id = match value {
                        Value::Integer(id) => Some(id),
                        _ => None,
                    };
                } else {
                    line.text.push(b'\t');
                }
                write(&mut line.text, column, value)
            });
            match written {
                Ok(false) => {}
                Ok(true) => line.replaced = Some(place(&key)),
                Err(why) => {
                    let place = place(&key);
                    return Err(CopyLineError { place, why });
                }
            }
        }
        line.text.push(b'\n');
        Ok(line)
    }
}

fn value_of(value: SqliteValueRef<'_>) -> Result<Value<'_>, String> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let kind = value.type_info().name().to_owned();
    let bytes = |value| <&[u8] as Decode<Sqlite>>::decode(value).map_err(|error| error.to_string());
    match kind.as_str() {
        "INTEGER" => {
            let number = <i64 as Decode<Sqlite>>::decode(value);
            number
                .map(Value::Integer)
                .map_err(|error| error.to_string())
        }
        "TEXT" => bytes(value).map(Value::Text),
        "BLOB" => bytes(value).map(Value::Bytes),
        other => Err(format!("found a value of type {other}")),
    }
}

/// Returns the first value of a row, to find it again.
fn shown(value: Value<'_>) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => EscapedBytes(text.get(..MAX_SHOWN_KEY).unwrap_or(text)).to_string(),
        Value::Bytes(bytes) => crate::hex::hex(bytes.get(..MAX_SHOWN_KEY).unwrap_or(bytes)),
    }
}

/// Writes a value; returns whether it is a text with U+0000.
fn write(line: &mut Vec<u8>, column: &Column, value: Value<'_>) -> Result<bool, String> {
    match (column.kind, value) {
        (_, Value::Null) => line.extend_from_slice(b"\\N"),
        (ColumnKind::Integer, Value::Integer(number)) => {
            line.extend_from_slice(number.to_string().as_bytes());
        }
        (ColumnKind::Flag, Value::Integer(0)) => line.push(b'f'),
        (ColumnKind::Flag, Value::Integer(1)) => line.push(b't'),
        (ColumnKind::Bytes, Value::Bytes(bytes)) => {
            line.extend_from_slice(b"\\\\x");
            line.extend_from_slice(crate::hex::hex(bytes).as_bytes());
        }
        (ColumnKind::Text, Value::Text(text)) => return write_text(line, text),
        (kind, value) => {
            let expected = match kind {
                ColumnKind::Integer => "a number",
                ColumnKind::Flag => "0 or 1",
                ColumnKind::Text => "a text",
                ColumnKind::Bytes => "bytes",
            };
            let found = match value {
                Value::Null => "nothing".to_owned(),
                Value::Integer(number) => format!("the number {number}"),
                Value::Text(_) => "a text".to_owned(),
                Value::Bytes(_) => "bytes".to_owned(),
            };
            return Err(format!("expected {expected}, found {found}"));
        }
    }
    Ok(false)
}

fn write_text(line: &mut Vec<u8>, text: &[u8]) -> Result<bool, String> {
    let valid = std::str::from_utf8(text).map_err(|error| {
        let at = error.valid_up_to();
        format!("expected a text in UTF-8, found another byte behind {at} bytes")
    })?;
    let has_nul = valid.contains('\0');
    let storable = match has_nul {
        true => Cow::Owned(valid.replace('\0', "\u{FFFD}")),
        false => Cow::Borrowed(valid),
    };
    for byte in storable.bytes() {
        let letter = match byte {
            b'\\' => b'\\',
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            _ => {
                line.push(byte);
                continue;
            }
        };
        line.extend_from_slice(&[b'\\', letter]);
    }
    Ok(has_nul)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_server_writes_them() {
        let all = |kind, value| {
            let mut line = Vec::new();
            let column = Column {
                name: "x".to_owned(),
                kind,
            };
            let written = write(&mut line, &column, value);
            written.map(|has_nul| (String::from_utf8(line).unwrap(), has_nul))
        };
        for (kind, value, line) in [
            (
                ColumnKind::Integer,
                Value::Integer(i64::MIN),
                "-9223372036854775808",
            ),
            (ColumnKind::Integer, Value::Null, "\\N"),
            (ColumnKind::Flag, Value::Integer(1), "t"),
            (ColumnKind::Flag, Value::Integer(0), "f"),
            (ColumnKind::Bytes, Value::Bytes(&[0, 255]), "\\\\x00ff"),
            (ColumnKind::Bytes, Value::Bytes(&[]), "\\\\x"),
            (ColumnKind::Text, Value::Text(b""), ""),
            (ColumnKind::Text, Value::Text(b"\\N"), "\\\\N"),
            (
                ColumnKind::Text,
                Value::Text(b"\x08\x0c\n\r\t\x0b\x1b"),
                "\\b\\f\\n\\r\\t\\v\x1b",
            ),
            (
                ColumnKind::Text,
                Value::Text("\u{1f980}".as_bytes()),
                "\u{1f980}",
            ),
        ] {
            assert_eq!(all(kind, value), Ok((line.to_owned(), false)));
        }
        let replaced = all(ColumnKind::Text, Value::Text(b"a\0b"));
        assert_eq!(replaced, Ok(("a\u{FFFD}b".to_owned(), true)));
        for (kind, value, why) in [
            (
                ColumnKind::Flag,
                Value::Integer(2),
                "expected 0 or 1, found the number 2",
            ),
            (
                ColumnKind::Text,
                Value::Bytes(b"x"),
                "expected a text, found bytes",
            ),
            (
                ColumnKind::Text,
                Value::Text(b"ab\xff"),
                "found another byte behind 2 bytes",
            ),
            (
                ColumnKind::Bytes,
                Value::Text(b"x"),
                "expected bytes, found a text",
            ),
        ] {
            let error = all(kind, value).unwrap_err();
            assert!(error.ends_with(why), "{error}");
        }
    }
}
