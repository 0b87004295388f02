//! Rules about devices.

use super::Rule;
use super::Verdict::{Allow, Errno};

/// ioctl_tty(2) and ioctl_console(2).
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const TIOCCONS: u32 = 0x541d;
const TIOCSETD: u32 = 0x5423;

/// netdevice(7): `linux/sockios.h`.
const SIOCGIFBR: u32 = 0x8940;
const SIOCSIFBR: u32 = 0x8941;
const SIOCGIFVLAN: u32 = 0x8982;
const SIOCSIFVLAN: u32 = 0x8983;
const SIOCBRADDBR: u32 = 0x89a0;
const SIOCBRDELBR: u32 = 0x89a1;

/// No request that types into a terminal, drives a console, or loads a line discipline; nor one at a socket for which
/// the kernel loads the module of bridges or VLANs before it asks for a capability.
pub(super) const IOCTL: Rule = Rule::ByValue {
    argument: 1,
    values: &[
        TIOCSTI,
        TIOCLINUX,
        TIOCCONS,
        TIOCSETD,
        SIOCGIFBR,
        SIOCSIFBR,
        SIOCGIFVLAN,
        SIOCSIFVLAN,
        SIOCBRADDBR,
        SIOCBRDELBR,
    ],
    listed: Errno(libc::EPERM),
    other: Allow,
};

/// A whiteout is a device node that Landlock does not look at. Overlays make theirs inside the kernel.
pub(super) const RENAMEAT2: Rule = Rule::RefuseFlags {
    argument: 4,
    mask: libc::RENAME_WHITEOUT,
    errno: libc::EINVAL,
};
