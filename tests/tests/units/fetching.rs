//! What the drop-in for fetches gives, and what it keeps from belljard even where its configuration would let it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use belljar_core::Digest;
use belljar_tests::{Installed, Part, Project, Run};

use super::DropIn;

/// Belongs to the machine's loopback interface while the test runs, and is an address as any on the Internet.
const MIRROR: &str = "11.22.33.44";
const PORT: u16 = 8080;
/// Where the drop-in lets the name server be.
const RESOLVER: &str = "127.0.0.53:53";
const CONTENT: &[u8] = b"from a mirror\n";
const CONFIG: &str = "/etc/belljar/belljard.toml";
const AUTHORITIES: &str = "/etc/belljar/authorities.pem";

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn the_drop_in_for_fetches_opens_what_it_says_and_no_more() {
    let installed = Installed::here();
    give_address("lo:1", MIRROR);
    serve(MIRROR);
    serve("127.0.0.1");
    resolve();
    let resolv = std::fs::read("/etc/resolv.conf").ok();
    std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.53\n").unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["mirror.test".to_owned()]).unwrap();
    std::fs::write(AUTHORITIES, key.cert.pem()).unwrap();
    let written = std::fs::read_to_string(CONFIG).unwrap();
    let fetch = format!(
        "\n[fetch]\nallow = [\"mirror.test\", \"127.0.0.1\"]\nports = [{PORT}]\nca = \"{AUTHORITIES}\"\n\
         timeout_seconds = 3\nallow_private = [\"{MIRROR}/32\", \"127.0.0.0/8\"]\n"
    );
    std::fs::write(CONFIG, format!("{written}{fetch}")).unwrap();
    let mirror = format!("http://mirror.test:{PORT}/x");

    // Without the drop-in there is no network, whatever the configuration says.
    installed.systemctl(&["restart"], Part::Belljard);
    let run = wanting(&installed, &mirror, CONTENT);
    assert_eq!(run.exit_code, 8, "{run}");
    let outcome = run.outcome().to_string();
    assert!(outcome.contains("cannot be resolved"), "{run}");

    let example = include_str!("../../../systemd/belljard.service.d/fetch.conf.example");
    let drop_in = DropIn::new(&installed, Part::Belljard, "fetch.conf", example);

    // With it the name is resolved, and its server reached.
    let run = wanting(&installed, &mirror, CONTENT);
    run.assert_succeeded();
    assert_eq!(run.file("out"), CONTENT);

    // What the drop-in denies is out of reach, though belljard's own configuration opens it. Of content that it has
    // belljard would ask nobody.
    let denied = format!("http://127.0.0.1:{PORT}/x");
    let run = wanting(&installed, &denied, b"something else");
    let outcome = run.outcome().to_string();
    let due = ["took longer", "cannot be connected to"];
    assert!(due.iter().any(|due| outcome.contains(due)), "{run}");

    std::fs::write(CONFIG, written).unwrap();
    match resolv {
        Some(resolv) => std::fs::write("/etc/resolv.conf", resolv).unwrap(),
        None => std::fs::remove_file("/etc/resolv.conf").unwrap(),
    }
    drop_in.end(&installed);
}

/// A build that wants this content from there.
fn wanting(installed: &Installed, url: &str, content: &[u8]) -> Run {
    let digest = Digest::of(content).to_hex();
    let fetch = format!("[fetch.x]\nurls = [\"{url}\"]\nsha256 = \"{digest}\"");
    installed.run(&Project::of(&["cat /deps/x/x > out"], &["out"], &fetch))
}

/// Gives an alias of an interface an IPv4 address (netdevice(7)).
fn give_address(alias: &str, address: &str) {
    let script = "
import fcntl, socket, struct, sys
name, address = sys.argv[1].encode(), socket.inet_aton(sys.argv[2])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for request, value in ((0x8916, address), (0x891c, b'\\xff' * 4)):
        entry = struct.pack('HH4s8x', socket.AF_INET, 0, value)
        fcntl.ioctl(s, request, struct.pack('16s16s', name, entry) + bytes(8))
";
    let mut python = std::process::Command::new("python3");
    let status = python.args(["-c", script, alias, address]).status();
    assert!(status.unwrap().success());
}

/// A server of HTTP at this address that gives everybody [`CONTENT`], as long as the test lasts.
fn serve(address: &str) {
    let listener = TcpListener::bind((address, PORT)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                CONTENT.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), CONTENT].concat());
        }
    });
}

/// A name server that knows one IPv4 address for whatever it is asked for, and no other record (RFC 1035, section 4).
fn resolve() {
    const QUERY: usize = 12;
    let socket = UdpSocket::bind(RESOLVER).unwrap();
    let address: Ipv4Addr = MIRROR.parse().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[QUERY..count];
            let Some(name) = question.iter().position(|byte| *byte == 0) else {
                continue;
            };
            let question = &question[..(name + 5).min(question.len())];
            let is_a = question.ends_with(&[0, 1, 0, 1]);
            let mut answer = buffer[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            answer.extend(question);
            if is_a {
                answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = socket.send_to(&answer, from);
        }
    });
}
