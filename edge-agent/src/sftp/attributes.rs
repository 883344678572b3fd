//! A file's attributes: as SFTP has them, and as `ls -l` shows them.

use holdfast_protocol::sftp::Attributes;
use rustix::fs::{FileType, Stat};

use super::people::People;

/// Half a year, in seconds: `ls` shows the time of day of what changed since, and the year of the rest.
const RECENT: i64 = 365 * 24 * 60 * 60 / 2;

const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Returns attributes in SFTP's form.
pub(super) fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        temporary: false,
        size: Some(u64::try_from(stat.st_size).unwrap_or(0)),
        owner: Some((stat.st_uid, stat.st_gid)),
        permissions: Some(stat.st_mode),
        times: Some((seconds(stat.st_atime), seconds(stat.st_mtime))),
    }
}

/// Clamps a time to SFTP's 32 bits, which begin in 1970 and end in 2106.
fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// Returns the line of `ls -l` about a file, with times in UTC; `now` in seconds since 1970.
pub(super) fn line(name: &[u8], stat: &Stat, people: &mut People, now: i64) -> Vec<u8> {
    let user = people.user_or_number(stat.st_uid).into_owned();
    let group = people.group_or_number(stat.st_gid);
    let line = format!(
        "{}  {:>3} {user:<8} {group:<8} {:>8} {} ",
        mode(stat.st_mode),
        stat.st_nlink,
        stat.st_size,
        date(stat.st_mtime, now),
    );
    [line.as_bytes(), name].concat()
}

/// Returns a mode in the form of `drwxr-xr-x`.
fn mode(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Unknown => '?',
    };
    let bit = |bit: u32| mode & bit != 0;
    let mut text = String::from(kind);
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        text.push(if bit(4 << shift) { 'r' } else { '-' });
        text.push(if bit(2 << shift) { 'w' } else { '-' });
        let runs = bit(1 << shift);
        let mut letters = letters.chars();
        let (both, alone) = (letters.next(), letters.next());
        let last = match (bit(special), runs) {
            (true, true) => both,
            (true, false) => alone,
            (false, true) => Some('x'),
            (false, false) => None,
        };
        text.push(last.unwrap_or('-'));
    }
    text
}

/// Returns `Nov 22 14:05`, or `Feb  3  2001` of what is older than half a year or lies ahead.
fn date(time: i64, now: i64) -> String {
    let day = time.div_euclid(SECONDS_OF_A_DAY);
    let (year, month, day) = civil(day);
    let second = time.rem_euclid(SECONDS_OF_A_DAY);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    if time > now.saturating_sub(RECENT) && time <= now {
        format!("{month} {day:>2} {hour:02}:{minute:02}")
    } else {
        format!("{month} {day:>2}  {year}")
    }
}

/// Returns year, month and day of a day since 1970. A year of the Gregorian calendar that begins in March has its
/// leap day last, so that months begin at fixed days; 400 of them are 146,097 days.
fn civil(day: i64) -> (i64, &'static str, i64) {
    let since_0000 = day.saturating_add(719_468);
    let (era, day) = (
        since_0000.div_euclid(146_097),
        since_0000.rem_euclid(146_097),
    );
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    // March is 0.
    let index = usize::try_from((month + 2) % 12).unwrap_or(0);
    let is_after_december = i64::from(index < 2);
    let name = MONTHS.get(index).copied().unwrap_or("???");
    (year + era * 400 + is_after_december, name, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_ls() {
        for (bits, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o106_644, "-rwSr-Sr--"),
            (0o041_777, "drwxrwxrwt"),
            (0o041_776, "drwxrwxrwT"),
            (0o010_000, "p---------"),
            (0o140_000, "s---------"),
            (0o020_600, "crw-------"),
            (0o060_600, "brw-------"),
            (0, "?---------"),
        ] {
            assert_eq!(mode(bits), text);
        }
    }

    #[test]
    fn dates_are_those_of_ls() {
        let now = 1_795_353_900;
        for (time, text) in [
            (now, "Nov 22 13:25"),
            (now - 60 * 60 * 24 * 30, "Oct 23 13:25"),
            (now + 1, "Nov 22  2026"),
            (981_173_106, "Feb  3  2001"),
            (0, "Jan  1  1970"),
            (-1, "Dec 31  1969"),
            (951_782_400, "Feb 29  2000"),
            (951_868_800, "Mar  1  2000"),
            (4_107_542_400, "Mar  1  2100"),
            (4_107_456_000, "Feb 28  2100"),
        ] {
            assert_eq!(date(time, now), text, "{time}");
        }
        // Whatever a file system says.
        for time in [i64::MIN, i64::MAX] {
            date(time, now);
            date(now, time);
        }
    }
}
