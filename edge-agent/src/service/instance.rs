//! Identifies this run of the agent, and the machine that it is on: by these the relay distinguishes a device that
//! comes again, after a restart or through another network, from a copy of its card.

use std::fs;
use std::path::Path;

use holdfast_protocol::ids::DeviceId;
use holdfast_protocol::wire::Instance;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

/// The place where hardware says which piece of it this is: a Pi and most boards with a device tree, PCs and virtual
/// machines.
const SERIALS: [&str; 2] = [
    "sys/firmware/devicetree/base/serial-number",
    "sys/class/dmi/id/product_uuid",
];

/// Makes the mark of this run.
#[must_use]
pub fn of_this_run(device: DeviceId) -> Instance {
    let mut id = [0; 16];
    // Without randomness two runs look like one, and a copy is not noticed; the tunnel works all the same.
    let _ = SystemRandom::new().fill(&mut id);
    Instance {
        id,
        machine: machine(Path::new("/"), device),
    }
}

/// Returns a hash of what the hardware calls itself. The device's identifier is part of it, so that the mark says
/// nothing to anybody but this device's relay.
fn machine(root: &Path, device: DeviceId) -> Option<[u8; 16]> {
    let serial = SERIALS.iter().find_map(|file| serial(&root.join(file)));
    let name = serial.or_else(|| card(&root.join("sys/class/net")))?;
    let mut text = device.0.to_vec();
    text.extend(name.as_bytes());
    digest(&SHA256, &text).as_ref().get(..16)?.try_into().ok()
}

fn serial(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    // Boards without a serial number have zeros there.
    let means_something = text.chars().any(|c| c.is_ascii_alphanumeric() && c != '0');
    means_something.then(|| text.to_owned())
}

/// Returns the address of the first network card that is hardware.
fn card(folder: &Path) -> Option<String> {
    let mut cards: Vec<_> = fs::read_dir(folder).ok()?.flatten().collect();
    cards.sort_by_key(fs::DirEntry::file_name);
    cards.into_iter().find_map(|card| {
        let is_hardware = card.path().join("device").exists();
        serial(&card.path().join("address")).filter(|_| is_hardware)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn hardware_differs_by_its_serial_or_its_card() {
        let device = DeviceId([1; 16]);
        let root = tempfile::tempdir().unwrap();
        let of = || machine(root.path(), device);
        assert_eq!(of(), None);
        // A virtual interface is none.
        write(
            root.path(),
            "sys/class/net/br0/address",
            "02:00:00:00:00:01\n",
        );
        assert_eq!(of(), None);
        write(
            root.path(),
            "sys/class/net/eth0/address",
            "02:00:00:00:00:02\n",
        );
        write(root.path(), "sys/class/net/eth0/device/x", "");
        let by_card = of().unwrap();
        write(
            root.path(),
            SERIALS[1],
            "00000000-0000-0000-0000-000000000000\n",
        );
        assert_eq!(of(), Some(by_card));
        write(root.path(), SERIALS[0], "10000000a1b2c3d4\0");
        let by_serial = of().unwrap();
        assert_ne!(by_serial, by_card);
        assert_ne!(machine(root.path(), DeviceId([2; 16])), Some(by_serial));
    }

    #[test]
    fn two_runs_differ() {
        let device = DeviceId([1; 16]);
        let (one, other) = (of_this_run(device), of_this_run(device));
        assert_ne!(one.id, other.id);
        assert_eq!(one.machine, other.machine);
    }
}
