//! The file operations in recordings of sftp: what an honest device lists is what the relay has seen.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use holdfast_protocol::sftp::kind::{EXTENDED, INIT, READ};
use serde_json::Value;
use tempfile::TempDir;

use super::{exported, rows, site};
use crate::harness::{
    Running, SOON, Site, Way, own_login, run, run_with_input, wait_for, wait_until,
};

/// Larger than what passes in any of these tests.
const ENDLESS: u64 = 1 << 40;

/// The one recording, when there is a verdict on it.
#[track_caller]
fn judged(site: &Site) -> Value {
    wait_for(SOON * 2, "a verdict", || {
        let row = rows(&site.relay).first()?.clone();
        row["verified"].is_boolean().then_some(row)
    })
}

#[track_caller]
fn assert_verified(site: &Site) -> Vec<Value> {
    let row = judged(site);
    let id = row["id"].as_str().unwrap();
    let said = site.relay.admin(&["recordings", "verify", id]).ok();
    assert_eq!(
        (&row["kind"], &row["verified"]),
        (&"sftp".into(), &true.into()),
        "{said} {row}"
    );
    let records = exported(&site.relay, id).into_iter();
    let files: Vec<Value> = records.filter(|record| record["event"] == "file").collect();
    assert!(files.iter().all(|file| file["mark"].is_null()), "{files:?}");
    files
}

fn sftp(site: &Site) -> Command {
    let mut sftp = site.alice.tool("sftp");
    sftp.args(["-q", "-b", "-"])
        .arg(Way::Direct.destination(&own_login(), "kitchen-cam"));
    sftp
}

/// A file of that many bytes, most of which take no room.
fn sparse(folder: &TempDir, bytes: u64) -> String {
    let path = folder.path().join("sparse");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path.display().to_string()
}

fn operations(files: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let kinds = files.iter().map(|file| {
        let path = name(&text(&file["path"]));
        let operation = text(&file["operation"]);
        let result = &file["result"];
        format!("{operation} {path} {} {result}", file["bytes"])
    });
    kinds.filter(|line| !line.starts_with("stat ")).collect()
}

#[test]
fn operations_of_a_batch_are_verified() {
    let (site, folder) = (site(), tempfile::tempdir().unwrap());
    let place = folder.path().display();
    let source = sparse(&folder, 3_000_000);
    let batch = format!(
        "cd {place}\nmkdir sub\nput {source} sub/one\nrename sub/one sub/two\nls sub\n\
         get sub/two {place}/back\nrm sub/two\n-rm sub/two\nrmdir sub\n"
    );
    run_with_input(&mut sftp(&site), batch.as_bytes()).ok();
    let lines = operations(&assert_verified(&site));
    let expected = [
        "make_folder sub 0 0",
        "write one 3000000 0",
        "rename one 0 0",
        "list sub 0 0",
        "read two 3000000 0",
        "remove two 0 0",
        "remove two 0 2",
        "remove_folder sub 0 0",
    ];
    let lines: Vec<&String> = lines
        .iter()
        .filter(|line| !line.starts_with("resolve") && !line.starts_with("set_attributes"))
        .filter(|line| !line.starts_with("other"))
        .collect();
    assert_eq!(lines, expected);
}

/// Covers reads and writes that the relay asks for before the client does, and closes by another number.
#[test]
fn operations_of_many_small_files_are_verified() {
    let (site, folder) = (site(), tempfile::tempdir().unwrap());
    let from = folder.path().join("from");
    std::fs::create_dir(&from).unwrap();
    for number in 0..40 {
        let mut file = File::create(from.join(format!("{number:02}"))).unwrap();
        write!(file, "{}", "x".repeat(number * 100)).unwrap();
    }
    let place = folder.path().display();
    let batch = format!("cd {place}\nmkdir to\nput from/* to/\nget to/* back/\n");
    std::fs::create_dir(folder.path().join("back")).unwrap();
    let mut client = sftp(&site);
    client.current_dir(folder.path());
    run_with_input(&mut client, batch.as_bytes()).ok();
    let lines = operations(&assert_verified(&site));
    for number in 0..40 {
        for operation in ["write", "read"] {
            let expected = format!("{operation} {number:02} {} 0", number * 100);
            assert!(lines.contains(&expected), "{expected}: {lines:?}");
        }
    }
}

#[test]
fn operations_of_scp_are_verified() {
    let (site, folder) = (site(), tempfile::tempdir().unwrap());
    let source = sparse(&folder, 8_000_000);
    let destination = Way::Direct.destination(&own_login(), "kitchen-cam");
    let to = format!("{destination}:{}/copy", folder.path().display());
    run(site.alice.tool("scp").arg("-p").args([&source, &to])).ok();
    let lines = operations(&assert_verified(&site));
    assert!(
        lines.contains(&"write copy 8000000 0".to_owned()),
        "{lines:?}"
    );
}

fn packet(kind: u8, id: u32, rest: &[u8]) -> Vec<u8> {
    string(&[&[kind][..], &id.to_be_bytes(), rest].concat())
}

fn string(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text].concat()
}

/// All answers have come when the session is ended: the open file is the same for both.
#[test]
fn open_file_at_a_kill_is_verified_where_nothing_was_under_way() {
    let (site, folder) = (site(), tempfile::tempdir().unwrap());
    let path = folder.path().join("f");
    std::fs::write(&path, "what-was-read").unwrap();
    let mut ssh = site.ssh(Way::Direct);
    let mut client = Running::start(ssh.args(["-s", "sftp"]));
    let path = path.into_os_string().into_encoded_bytes();
    let open = [&b"open-as@holdfast"[..], b"mine", &path].map(string);
    let open = [open.concat(), vec![0, 0, 0, 1, 0, 0, 0, 0]].concat();
    let read = [&string(b"mine")[..], &[0; 8], &64_u32.to_be_bytes()].concat();
    for request in [
        packet(INIT, 3, &[]),
        packet(EXTENDED, 1, &open),
        packet(READ, 2, &read),
    ] {
        client.write_bytes(&request);
    }
    client.wait_out("what-was-read");
    kill(&site);
    client.wait(SOON);
    let lines = operations(&assert_verified(&site));
    assert_eq!(lines, ["read f 13 7"]);
}

#[track_caller]
fn kill(site: &Site) {
    let sessions = site.relay.json(&["sessions", "--json"]);
    let id = sessions[0]["id"].as_str().unwrap();
    site.relay.admin(&["sessions", "kill", id]).ok();
}

/// Starts a transfer that never ends by itself, and returns it when it is under way.
#[track_caller]
fn endless(site: &Site, batch: &str, counter: &str) -> Running {
    let mut client = sftp(site);
    client.stdout(Stdio::null());
    let mut client = Running::start(&mut client);
    client.write(batch);
    wait_until(SOON, "a transfer that is under way", || {
        let sessions = site.relay.json(&["sessions", "--json"]);
        sessions[0][counter].as_u64() > Some(4 << 20)
    });
    client
}

/// Checks that a recording is not contradicted, and that each operation without a mark was seen by the relay.
#[track_caller]
fn assert_not_contradicted(site: &Site, operation: &str) {
    let row = judged(site);
    assert_eq!(row["state"], "complete", "{row}");
    let id = row["id"].as_str().unwrap();
    let code = if row["verified"] == true { 0 } else { 3 };
    site.relay.admin(&["recordings", "verify", id]).exits(code);
    let records = exported(&site.relay, id);
    let files: Vec<_> = records
        .iter()
        .filter(|record| record["event"] == "file" && record["operation"] == operation)
        .collect();
    let [file] = files[..] else {
        panic!("{files:?}")
    };
    let unseen = "answer not seen by the relay";
    let is_marked = file["mark"] == unseen;
    assert!(is_marked || file["mark"].is_null(), "{file}");
    if is_marked {
        let said = site.relay.admin(&["recordings", "verify", id]).exits(3);
        assert!(said.out().contains("1 operation not proved"), "{said}");
        let text = site.relay.export(id, "txt");
        assert!(text.contains(&format!("[{unseen}] {operation}")), "{text}");
    }
}

#[test]
fn transfers_that_are_killed_are_not_contradicted() {
    for (put, counter, operation) in [(false, "bytes_out", "read"), (true, "bytes_in", "write")] {
        let (site, folder) = (site(), tempfile::tempdir().unwrap());
        let file = sparse(&folder, ENDLESS);
        let batch = match put {
            true => format!("put {file} /dev/null\n"),
            false => format!("get {file} /dev/null\n"),
        };
        let client = endless(&site, &batch, counter);
        kill(&site);
        client.wait(SOON);
        assert_not_contradicted(&site, operation);
    }
}

#[test]
fn transfer_whose_tunnel_is_lost_is_not_contradicted() {
    let (mut site, folder) = (site(), tempfile::tempdir().unwrap());
    let file = sparse(&folder, ENDLESS);
    let client = endless(&site, &format!("get {file} /dev/null\n"), "bytes_out");
    site.device.stop();
    // Its last packet may be lost behind so many: then the next tunnel ends the one before.
    site.device.run_online(&site.relay);
    client.wait(SOON);
    assert_not_contradicted(&site, "read");
}
