//! Addresses of the machine itself, in a network namespace that has such as everybody could reach.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;

use belljar_core::Outcome;
use belljar_tests::Instance;
use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::server::{Server, content};
use crate::{file, run, spec};

/// `linux/rtnetlink.h`, `linux/if_addr.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
/// Loopback is the first device of every namespace.
const LOOPBACK: u32 = 1;

/// Has the kernel change something of this thread's network namespace (rtnetlink(7)).
fn change(kind: u16, body: &[u8]) {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    // Made if it is not there, and answered.
    message.extend(0x405_u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    rustix::net::send(&socket, &message, SendFlags::empty()).unwrap();
    let mut answer = [0; 4096];
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty()).unwrap();
    assert!(length >= 20 && answer[16..20] == [0; 4], "no error of zero");
}

/// Gives the loopback device an address.
fn give(address: Ipv4Addr, prefix: u8) {
    let family = u8::try_from(AddressFamily::INET.as_raw()).unwrap();
    let mut body = vec![family, prefix, 0, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    for kind in [IFA_ADDRESS, IFA_LOCAL] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(address.octets());
    }
    change(RTM_NEWADDR, &body);
}

/// Leaves the network for one of this thread's own, and of all that it starts.
fn leave_network() {
    let here = || fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = here();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    assert_ne!(here(), before);
    let up = [
        [0; 4],
        LOOPBACK.to_ne_bytes(),
        IFF_UP.to_ne_bytes(),
        IFF_UP.to_ne_bytes(),
    ];
    change(RTM_NEWLINK, &up.concat());
}

#[test]
fn no_address_of_the_machine_itself_is_fetched_from_unless_the_operator_opens_it() {
    leave_network();
    // The second one of a network: the kernel sends from the first to both.
    let (first, second, opened) = ("20.0.0.1", "20.0.0.2", "20.0.1.2");
    for (address, prefix) in [(first, 24), (second, 24), (opened, 32)] {
        give(address.parse().unwrap(), prefix);
    }
    let server = Server::start_at("0.0.0.0", vec![("/x", content(b"x"))]);
    let mut instance = Instance::configured();
    let path = instance.state().join("config/belljard.toml");
    let text = format!(
        "\n[fetch]\nallow = [\"any\"]\nports = [{}]\nallow_private = [\"{opened}/32\"]\n",
        server.port()
    );
    let mut configuration = fs::File::options().append(true).open(path).unwrap();
    configuration.write_all(text.as_bytes()).unwrap();
    instance.start();
    let client = instance.client();
    let end = |address: &str| {
        let url = format!("http://{address}:{}/x", server.port());
        let spec = spec(&client, "cp /deps/x/file out", &[("x", file(&[url], b"x"))]);
        run(&client, address, &spec).outcome.unwrap()
    };
    for own in [first, second] {
        let outcome = end(own);
        let due = format!("{own} is an address of this machine itself");
        assert!(outcome.to_string().contains(&due), "{own}: {outcome}");
    }
    assert!(server.asked().is_empty(), "{:?}", server.asked());
    assert_eq!(end(opened), Outcome::Succeeded);
}
