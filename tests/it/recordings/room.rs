//! The relay has no room: sessions run, and their recordings wait on their devices.

use super::{events, rows, site, wait_state};
use crate::harness::{SOON, Way, run, wait_until};

#[test]
fn uploads_wait_for_free_disk_and_sessions_run() {
    let mut site = site();
    let config = site.relay.folder().join("room.toml");
    std::fs::write(&config, "[recordings]\nmin_free = \"1000000 TiB\"\n").unwrap();
    site.relay
        .add_flags(&["--config", config.to_str().unwrap()]);
    site.relay.restart();
    site.device.wait_online(&site.relay);
    let said = site.exec(Way::Direct, "echo hello").ok();
    assert_eq!(said.stdout, b"hello\n", "{said}");
    wait_until(SOON, "an upload that is refused", || {
        events(&site.relay, "recording.refused").len() == 1
    });
    let refused = events(&site.relay, "recording.refused");
    assert_eq!(refused[0]["outcome"], "refused", "{refused:?}");
    assert_eq!(rows(&site.relay)[0]["bytes"], 0);
    let doctor = site.relay.admin(&["doctor"]).exits(1);
    assert!(doctor.out().contains("uploads are refused"), "{doctor}");
    let on_device = || run(&mut site.device.command(&["doctor"]));
    wait_until(SOON, "the device to hear of it", || {
        on_device().out().contains("cannot be stored by the relay")
    });
    let doctor = on_device().exits(1).out();
    assert!(
        doctor.contains("run `relay doctor` on the relay"),
        "{doctor}"
    );
    assert!(!doctor.contains("--spool-max"), "{doctor}");

    std::fs::write(&config, "[recordings]\n").unwrap();
    site.relay.restart();
    wait_state(&site.relay, "complete");
    let doctor = site.relay.admin(&["doctor"]).ok();
    assert!(doctor.out().contains("storage"), "{doctor}");
    // The agent was not restarted, and what was stored is no trouble any more.
    wait_until(SOON, "the device to hear of it", || {
        !on_device().out().contains("problem spool")
    });
    on_device().ok();
    let status = run(&mut site.device.command(&["status"])).ok();
    assert!(!status.out().contains("last trouble"), "{status}");
}
