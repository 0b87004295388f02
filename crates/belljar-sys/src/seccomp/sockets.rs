//! Rules about sockets. They are in a network namespace of their own, so it is the kernel's code that is kept from
//! builds, not a network: a family or a protocol may be a module that only this socket has it load.

use super::Rule;
use super::Verdict::{Allow, Errno};
use super::table::{PERMITTED, WITHOUT_EFFECT};

/// Local sockets; streams and datagrams by TCP and UDP; and of AF_NETLINK the routes, which libraries ask for.
pub(super) const SOCKET: Rule = Rule::When {
    argument: 0,
    value: libc::AF_UNIX.cast_unsigned(),
    then: &PERMITTED,
    otherwise: &Rule::When {
        argument: 0,
        value: libc::AF_INET.cast_unsigned(),
        then: &INTERNET,
        otherwise: &Rule::When {
            argument: 0,
            value: libc::AF_INET6.cast_unsigned(),
            then: &INTERNET,
            otherwise: &Rule::When {
                argument: 0,
                value: libc::AF_NETLINK.cast_unsigned(),
                then: &Rule::ByValue {
                    argument: 2,
                    values: &[libc::NETLINK_ROUTE.cast_unsigned()],
                    listed: Allow,
                    other: Errno(libc::EAFNOSUPPORT),
                },
                otherwise: &Rule::Always(Errno(libc::EAFNOSUPPORT)),
            },
        },
    },
};

/// Not MPTCP, SCTP, DCCP, SMC, L2TP, UDP-Lite, nor ICMP.
const INTERNET: Rule = Rule::When {
    argument: 2,
    value: libc::IPPROTO_IP.cast_unsigned(),
    then: &TYPES,
    otherwise: &Rule::When {
        argument: 2,
        value: libc::IPPROTO_TCP.cast_unsigned(),
        then: &TYPES,
        otherwise: &Rule::When {
            argument: 2,
            value: libc::IPPROTO_UDP.cast_unsigned(),
            then: &TYPES,
            otherwise: &Rule::Always(Errno(libc::EPROTONOSUPPORT)),
        },
    },
};

/// Streams and datagrams, with what else the type's argument may say (socket(2)); raw ones need a capability anyway.
const TYPES: Rule = Rule::ByValue {
    argument: 1,
    values: &[
        STREAM,
        STREAM | CLOEXEC,
        STREAM | NONBLOCK,
        STREAM | NONBLOCK | CLOEXEC,
        DATAGRAM,
        DATAGRAM | CLOEXEC,
        DATAGRAM | NONBLOCK,
        DATAGRAM | NONBLOCK | CLOEXEC,
    ],
    listed: Allow,
    other: Errno(libc::EPERM),
};
const STREAM: u32 = libc::SOCK_STREAM.cast_unsigned();
const DATAGRAM: u32 = libc::SOCK_DGRAM.cast_unsigned();
const CLOEXEC: u32 = libc::SOCK_CLOEXEC.cast_unsigned();
const NONBLOCK: u32 = libc::SOCK_NONBLOCK.cast_unsigned();

/// No program at a socket, as no filter ([`super::uncounted::PRCTL`]); and no more waits in one than by default, since
/// much of it is counted nowhere. For the kernel any size is a wish, too, which it cuts without a word. No protocol
/// above TCP or UDP either, inside the kernel: as where there is none.
pub(super) const SETSOCKOPT: Rule = Rule::When {
    argument: 1,
    value: libc::SOL_SOCKET.cast_unsigned(),
    then: &Rule::When {
        argument: 2,
        value: libc::SO_RCVBUF.cast_unsigned(),
        then: &WITHOUT_EFFECT,
        otherwise: &Rule::ByValue {
            argument: 2,
            values: &[
                libc::SO_ATTACH_FILTER.cast_unsigned(),
                libc::SO_ATTACH_BPF.cast_unsigned(),
                libc::SO_ATTACH_REUSEPORT_CBPF.cast_unsigned(),
                libc::SO_ATTACH_REUSEPORT_EBPF.cast_unsigned(),
            ],
            listed: Errno(libc::EPERM),
            other: Allow,
        },
    },
    otherwise: &Rule::When {
        argument: 1,
        value: libc::IPPROTO_TCP.cast_unsigned(),
        then: &TCP,
        otherwise: &Rule::When {
            argument: 1,
            value: libc::IPPROTO_IPV6.cast_unsigned(),
            then: &IPV6,
            otherwise: &Rule::When {
                argument: 1,
                value: libc::IPPROTO_UDP.cast_unsigned(),
                then: &UDP,
                otherwise: &PERMITTED,
            },
        },
    },
};

/// No signatures of segments, as on a kernel without them: the algorithms for them are a stock of the whole machine
/// (`CPOOL_SIZE`, 8), and by its name any may be loaded.
const TCP: Rule = Rule::When {
    argument: 2,
    value: libc::TCP_ULP.cast_unsigned(),
    then: &Rule::Always(Errno(libc::ENOENT)),
    otherwise: &Rule::ByValue {
        argument: 2,
        values: &[
            libc::TCP_MD5SIG.cast_unsigned(),
            TCP_MD5SIG_EXT,
            TCP_AO_ADD_KEY,
            TCP_AO_DEL_KEY,
            TCP_AO_INFO,
        ],
        listed: Errno(libc::ENOPROTOOPT),
        other: Allow,
    },
};
/// `linux/tcp.h`.
const TCP_MD5SIG_EXT: u32 = 32;
const TCP_AO_ADD_KEY: u32 = 38;
const TCP_AO_DEL_KEY: u32 = 39;
const TCP_AO_INFO: u32 = 40;

/// No flow labels: they are a stock of the whole machine (`FL_MAX_SIZE`, 4096), whatever network they are for, of which
/// a build with many sockets can take all that others without privileges may have.
const IPV6: Rule = Rule::ByValue {
    argument: 2,
    values: &[libc::IPV6_FLOWLABEL_MGR.cast_unsigned()],
    listed: Errno(libc::ENOPROTOOPT),
    other: Allow,
};

/// No IPsec behind a port, whose code every such socket would have the machine run.
const UDP: Rule = Rule::ByValue {
    argument: 2,
    values: &[UDP_ENCAP],
    listed: Errno(libc::ENOPROTOOPT),
    other: Allow,
};
/// `linux/udp.h`.
const UDP_ENCAP: u32 = 100;
