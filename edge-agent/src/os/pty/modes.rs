//! Terminal modes as SSH encodes them (RFC 4254 section 8, and RFC 8160 for `IUTF8`).

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios,
};

/// The argument that disables a special character.
const DISABLED: u32 = 255;

/// The kernel's value of a disabled special character (`_POSIX_VDISABLE`).
const KERNEL_DISABLED: u8 = 0;

const ISPEED: u8 = 128;
const OSPEED: u8 = 129;

/// Sets what the opcodes say, in their order. Unknown opcodes are ignored, as the RFC asks.
pub(super) fn apply(termios: &mut Termios, modes: &[(u8, u32)]) {
    for &(opcode, argument) in modes {
        let on = argument != 0;
        if let Some(index) = special_code(opcode) {
            termios.special_codes[index] = match argument {
                DISABLED => KERNEL_DISABLED,
                code => u8::try_from(code).unwrap_or(KERNEL_DISABLED),
            };
        } else if let Some(flag) = input_mode(opcode) {
            termios.input_modes.set(flag, on);
        } else if let Some(flag) = local_mode(opcode) {
            termios.local_modes.set(flag, on);
        } else if let Some(flag) = output_mode(opcode) {
            termios.output_modes.set(flag, on);
        } else if let Some(flag) = control_mode(opcode) {
            // CS7 and CS8 are values of one field: on chooses, off says nothing.
            if !ControlModes::CSIZE.contains(flag) {
                termios.control_modes.set(flag, on);
            } else if on {
                termios.control_modes.remove(ControlModes::CSIZE);
                termios.control_modes.insert(flag);
            }
        } else if opcode == ISPEED {
            // A speed that the kernel does not know means nothing to a pseudo-terminal.
            let _ = termios.set_input_speed(argument);
        } else if opcode == OSPEED {
            let _ = termios.set_output_speed(argument);
        }
    }
}

fn special_code(opcode: u8) -> Option<SpecialCodeIndex> {
    Some(match opcode {
        1 => SpecialCodeIndex::VINTR,
        2 => SpecialCodeIndex::VQUIT,
        3 => SpecialCodeIndex::VERASE,
        4 => SpecialCodeIndex::VKILL,
        5 => SpecialCodeIndex::VEOF,
        6 => SpecialCodeIndex::VEOL,
        7 => SpecialCodeIndex::VEOL2,
        8 => SpecialCodeIndex::VSTART,
        9 => SpecialCodeIndex::VSTOP,
        10 => SpecialCodeIndex::VSUSP,
        12 => SpecialCodeIndex::VREPRINT,
        13 => SpecialCodeIndex::VWERASE,
        14 => SpecialCodeIndex::VLNEXT,
        16 => SpecialCodeIndex::VSWTC,
        18 => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input_mode(opcode: u8) -> Option<InputModes> {
    Some(match opcode {
        30 => InputModes::IGNPAR,
        31 => InputModes::PARMRK,
        32 => InputModes::INPCK,
        33 => InputModes::ISTRIP,
        34 => InputModes::INLCR,
        35 => InputModes::IGNCR,
        36 => InputModes::ICRNL,
        37 => InputModes::IUCLC,
        38 => InputModes::IXON,
        39 => InputModes::IXANY,
        40 => InputModes::IXOFF,
        41 => InputModes::IMAXBEL,
        42 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local_mode(opcode: u8) -> Option<LocalModes> {
    Some(match opcode {
        50 => LocalModes::ISIG,
        51 => LocalModes::ICANON,
        52 => LocalModes::XCASE,
        53 => LocalModes::ECHO,
        54 => LocalModes::ECHOE,
        55 => LocalModes::ECHOK,
        56 => LocalModes::ECHONL,
        57 => LocalModes::NOFLSH,
        58 => LocalModes::TOSTOP,
        59 => LocalModes::IEXTEN,
        60 => LocalModes::ECHOCTL,
        61 => LocalModes::ECHOKE,
        62 => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output_mode(opcode: u8) -> Option<OutputModes> {
    Some(match opcode {
        70 => OutputModes::OPOST,
        71 => OutputModes::OLCUC,
        72 => OutputModes::ONLCR,
        73 => OutputModes::OCRNL,
        74 => OutputModes::ONOCR,
        75 => OutputModes::ONLRET,
        _ => return None,
    })
}

fn control_mode(opcode: u8) -> Option<ControlModes> {
    Some(match opcode {
        90 => ControlModes::CS7,
        91 => ControlModes::CS8,
        92 => ControlModes::PARENB,
        93 => ControlModes::PARODD,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

    /// Returns the master too: a terminal without one knows nothing any more.
    fn terminal() -> [std::os::fd::OwnedFd; 2] {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        [master, slave]
    }

    #[test]
    fn each_kind_of_mode_reaches_the_kernel() {
        let modes = [
            (3, 8),
            (1, DISABLED),
            (36, 0),
            (42, 1),
            (53, 0),
            (72, 0),
            (90, 1),
            (128, 9600),
            (129, 9600),
        ];
        let [_master, slave] = terminal();
        let mut termios = tcgetattr(&slave).unwrap();
        apply(&mut termios, &modes);
        tcsetattr(&slave, OptionalActions::Now, &termios).unwrap();
        let kernel = tcgetattr(&slave).unwrap();
        assert_eq!(kernel.special_codes[SpecialCodeIndex::VERASE], 8);
        assert_eq!(
            kernel.special_codes[SpecialCodeIndex::VINTR],
            KERNEL_DISABLED
        );
        assert!(!kernel.input_modes.contains(InputModes::ICRNL));
        assert!(kernel.input_modes.contains(InputModes::IUTF8));
        assert!(!kernel.local_modes.contains(LocalModes::ECHO));
        assert!(!kernel.output_modes.contains(OutputModes::ONLCR));
        assert_eq!(kernel.output_speed(), 9600);
        // A pseudo-terminal has always eight bits, whatever was asked.
        assert_eq!(
            termios.control_modes & ControlModes::CSIZE,
            ControlModes::CS7
        );
    }

    proptest! {
        #[test]
        fn no_modes_panic(modes: Vec<(u8, u32)>) {
            let [_master, slave] = terminal();
            apply(&mut tcgetattr(slave).unwrap(), &modes);
        }
    }
}
