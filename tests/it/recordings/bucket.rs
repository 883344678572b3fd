//! Recordings in a bucket: the relay speaks S3 to a server that others wrote.

use super::{segments, wait_state};
use crate::harness::bucket::{BucketServer, SECRET};
use crate::harness::{Device, Relay, SOON, Site, Way, wait_until};

#[test]
fn recordings_lie_in_a_bucket() {
    let Some(bucket) = BucketServer::start() else {
        return;
    };
    let relay = Relay::start_with(&["--config", &bucket.configuration()]);
    let device = Device::new("kitchen-cam").flags(&["--upload", "always"]);
    let site = Site::on(relay, device);

    let line = "dd if=/dev/urandom bs=64k count=40 status=none";
    let said = site.exec(Way::Direct, line).ok();
    let row = wait_state(&site.relay, "complete");
    let id = row["id"].as_str().unwrap();
    assert_eq!(row["verified"], true, "{row}");
    let objects: Vec<String> = (0..3)
        .map(|segment| format!("fleet/{id}/{segment:08}.seg"))
        .collect();
    assert_eq!(bucket.objects(), objects);
    let folder = site.relay.state().join("recordings");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(segments(&site.device).is_empty());

    // Commands beside the relay find the bucket without its configuration.
    let export = ["export", id, "--format", "raw"];
    assert_eq!(site.relay.admin(&export).ok().stdout, said.stdout);
    let verified = site.relay.admin(&["recordings", "verify", id]).ok().out();
    assert!(verified.contains("complete and verified"), "{verified}");

    site.relay.admin(&["recordings", "rm", id]).ok();
    assert_eq!(bucket.objects(), Vec::<String>::new());

    site.exec(Way::Direct, "echo gone").ok();
    let row = wait_state(&site.relay, "complete");
    bucket.empty();
    let verify = ["recordings", "verify", row["id"].as_str().unwrap()];
    let verified = site.relay.admin(&verify).exits(1);
    let error = verified.err();
    assert!(
        error.contains("cannot be read from where it is stored: a segment of it is gone"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    let log = site.relay.log();
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn bucket_that_refuses_us_leaves_recordings_on_the_device() {
    let Some(bucket) = BucketServer::start() else {
        return;
    };
    let config = bucket.configuration();
    let credentials = bucket.credentials();
    let right = std::fs::read_to_string(&credentials).unwrap();
    std::fs::write(&credentials, right.replace(SECRET, "another")).unwrap();
    let relay = Relay::start_with(&["--config", &config]);
    let device = Device::new("kitchen-cam").flags(&["--upload", "always"]);
    let mut site = Site::on(relay, device);
    site.exec(Way::Direct, "echo kept").ok();
    wait_until(SOON, "the log names the bucket's refusal", || {
        site.relay.log().contains("SignatureDoesNotMatch")
    });
    assert_eq!(bucket.objects(), Vec::<String>::new());
    assert!(!segments(&site.device).is_empty());
    // With the right ones it comes, and nothing of it is lost.
    std::fs::write(&credentials, right).unwrap();
    site.relay.restart();
    let row = wait_state(&site.relay, "complete");
    assert_eq!(row["verified"], true, "{row}");
    assert!(!site.relay.log().contains(SECRET));
}

#[test]
fn a_bucket_that_cannot_be_opened_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    std::fs::write(
        &config,
        "[recordings]\nstore = \"s3\"\nbucket = \"tapes\"\n",
    )
    .unwrap();
    let relay = Relay::new(&["--config", config.to_str().unwrap()]);
    let mut serve = relay.serve_command();
    serve.env_remove("AWS_ACCESS_KEY_ID");
    let said = crate::harness::run(&mut serve);
    assert_eq!(said.code(), 1, "{said}");
    let error = said.err();
    assert!(
        error
            .contains("no credentials for the recordings' bucket \"tapes\": set AWS_ACCESS_KEY_ID"),
        "{error}"
    );
    // The others of the state folder's commands have no need of it.
    relay.admin(&["devices"]).ok();
}
