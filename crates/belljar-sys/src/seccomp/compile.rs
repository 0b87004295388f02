use std::io;

use super::{Filter, Rule, Verdict};

/// A compiled filter, ready to be installed any number of times.
#[derive(Clone)]
pub struct Program(Vec<libc::sock_filter>);

/// Offsets into `struct seccomp_data` (seccomp(2)).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Instruction codes (linux/filter.h): BPF_LD|BPF_W|BPF_ABS, BPF_RET|BPF_K, BPF_JMP|BPF_JA, and BPF_JMP with
/// BPF_JEQ, BPF_JGE and BPF_JSET by a constant.
const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;

/// `AUDIT_ARCH_*` of linux/audit.h for the architecture that this is compiled for.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// First number of the x32 calls on x86-64 (`__X32_SYSCALL_BIT`); no architecture has calls beyond.
const BEYOND: u32 = 0x4000_0000;

/// A run of consecutive numbers with one rule.
struct Run {
    first: u32,
    rule: Rule,
}

impl Program {
    /// Compiles `filter` for this architecture. Calls of any other are answered as those that no rule is for: to kill
    /// who makes them would be a line in the machine's log for each.
    ///
    /// # Errors
    /// When a number has two rules, or the program would have more instructions than the kernel takes.
    pub fn compile(filter: &Filter) -> io::Result<Self> {
        let runs = runs(filter)?;
        let mut code = vec![
            load(ARCHITECTURE),
            branch(IF_EQUAL, NATIVE, 1, 0),
            answer(filter.default),
            load(NUMBER),
        ];
        code.extend(tree(&runs));
        if code.len() > libc::BPF_MAXINSNS as usize {
            return Err(io::Error::other(format!(
                "the filter has {} instructions",
                code.len()
            )));
        }
        Ok(Self(code))
    }

    /// The program as bytes in host byte order: what its digest is taken over.
    pub fn bytes(&self) -> Vec<u8> {
        let bytes = |i: &libc::sock_filter| {
            let [c0, c1] = i.code.to_ne_bytes();
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
        };
        self.0.iter().flat_map(bytes).collect()
    }

    /// How many instructions it has.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    pub(super) fn instructions(&self) -> &[libc::sock_filter] {
        &self.0
    }
}

/// The whole number line as runs, sorted, the first beginning at zero.
fn runs(filter: &Filter) -> io::Result<Vec<Run>> {
    let mut rules = Vec::new();
    for (place, group) in filter.groups.iter().enumerate() {
        for (number, rule) in *group {
            let number = u32::try_from(*number).map_err(io::Error::other)?;
            rules.push((number, place, *rule));
        }
    }
    rules.sort_by_key(|(number, place, _)| (*number, *place));
    // Of several groups the first; twice in one group stays, and is found below.
    rules.dedup_by(|later, first| later.0 == first.0 && later.1 != first.1);
    let default = Rule::Always(filter.default);
    let mut runs = vec![Run {
        first: 0,
        rule: default,
    }];
    let mut next = 0;
    for (number, _, rule) in rules {
        if number < next || number >= BEYOND {
            return Err(io::Error::other(format!(
                "system call {number} has two rules, or no such number exists"
            )));
        }
        if number > next {
            push(&mut runs, next, default);
        }
        push(&mut runs, number, rule);
        next = number + 1;
    }
    push(&mut runs, next, default);
    // x32 calls are another door to the same kernel functions: as unknown as they can be.
    push(
        &mut runs,
        BEYOND,
        Rule::Always(Verdict::Errno(libc::ENOSYS)),
    );
    Ok(runs)
}

fn push(runs: &mut Vec<Run>, first: u32, rule: Rule) {
    match runs.last_mut() {
        Some(last) if last.first == first => last.rule = rule,
        Some(last) if last.rule == rule && matches!(rule, Rule::Always(_)) => {}
        _ => runs.push(Run { first, rule }),
    }
}

/// A balanced tree over `runs`: the accumulator holds the number at its root.
fn tree(runs: &[Run]) -> Vec<libc::sock_filter> {
    if let [run] = runs {
        return leaf(run.rule);
    }
    let middle = runs.len() / 2;
    let (lower, upper) = (tree(&runs[..middle]), tree(&runs[middle..]));
    let first = runs[middle].first;
    let mut code = match u8::try_from(lower.len()) {
        Ok(distance) => vec![branch(IF_AT_LEAST, first, distance, 0)],
        // A conditional jump reaches 255 instructions; an unconditional one goes on from there.
        Err(_) => vec![branch(IF_AT_LEAST, first, 0, 1), jump(lower.len())],
    };
    code.extend(lower);
    code.extend(upper);
    code
}

fn leaf(rule: Rule) -> Vec<libc::sock_filter> {
    match rule {
        Rule::Always(verdict) => vec![answer(verdict)],
        Rule::ByValue {
            argument,
            values,
            listed,
            other,
        } => {
            let mut code = vec![load(low_half(argument))];
            code.extend(any_of(values));
            code.extend([answer(other), answer(listed)]);
            code
        }
        Rule::RefuseFlags {
            argument,
            mask,
            errno,
        } => vec![
            load(low_half(argument)),
            branch(IF_ANY_BIT, mask, 0, 1),
            answer(Verdict::Errno(errno)),
            answer(Verdict::Allow),
        ],
        Rule::When {
            argument,
            value,
            then,
            otherwise,
        } => {
            let then = leaf(*then);
            // The rules of one call are a few instructions; `then` too long to be jumped over would not compile.
            let past = u8::try_from(then.len()).unwrap_or(u8::MAX);
            let mut code = vec![load(low_half(argument)), branch(IF_EQUAL, value, 0, past)];
            code.extend(then);
            code.extend(leaf(*otherwise));
            code
        }
        Rule::IgnoreWhen {
            argument,
            value,
            given,
        } => vec![
            load(low_half(argument)),
            branch(IF_EQUAL, value, 0, 4),
            load(low_half(given)),
            branch(IF_EQUAL, 0, 0, 3),
            load(high_half(given)),
            branch(IF_EQUAL, 0, 0, 1),
            answer(Verdict::Allow),
            answer(Verdict::Errno(0)),
        ],
    }
}

/// Compares the accumulator with each of `values`: goes on after the next instruction when one is
/// equal, with the next when none is.
fn any_of(values: &[u32]) -> Vec<libc::sock_filter> {
    let last = values.len();
    let step = |(index, value): (usize, &u32)| {
        let distance = u8::try_from(last - index).unwrap_or(u8::MAX);
        branch(IF_EQUAL, *value, distance, 0)
    };
    values.iter().enumerate().map(step).collect()
}

/// Where the low 32 bits of an argument lie.
fn low_half(argument: u32) -> u32 {
    let high_first = u32::from(cfg!(target_endian = "big"));
    ARGUMENTS + 8 * argument + 4 * high_first
}

/// Where the high 32 bits of an argument lie.
fn high_half(argument: u32) -> u32 {
    let low_first = u32::from(cfg!(target_endian = "little"));
    ARGUMENTS + 8 * argument + 4 * low_first
}

fn answer(verdict: Verdict) -> libc::sock_filter {
    give(match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Errno(errno) => {
            libc::SECCOMP_RET_ERRNO | (errno.cast_unsigned() & libc::SECCOMP_RET_DATA)
        }
    })
}

fn give(value: u32) -> libc::sock_filter {
    instruction(RETURN, 0, 0, value)
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(LOAD, 0, 0, offset)
}

fn branch(code: u16, value: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    instruction(code, if_true, if_false, value)
}

fn jump(distance: usize) -> libc::sock_filter {
    instruction(JUMP, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX))
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{SANDBOX, SERVICE, SERVICE_WITH_TCP};

    /// The kernel's interpreter for the few instructions that are used, over one `struct seccomp_data`.
    fn run(program: &Program, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => architecture,
            _ => {
                let index = usize::try_from((offset - ARGUMENTS) / 8).unwrap();
                let half = (offset - ARGUMENTS) % 8 / 4;
                u32::try_from(arguments[index] >> (32 * half) & 0xffff_ffff).unwrap()
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let i = program.0[at];
            let holds = match i.code {
                LOAD => {
                    accumulator = word(i.k);
                    at += 1;
                    continue;
                }
                RETURN => return i.k,
                JUMP => {
                    at += 1 + usize::try_from(i.k).unwrap();
                    continue;
                }
                IF_EQUAL => accumulator == i.k,
                IF_AT_LEAST => accumulator >= i.k,
                IF_ANY_BIT => accumulator & i.k != 0,
                code => panic!("unknown instruction {code}"),
            };
            at += 1 + usize::from(if holds { i.jt } else { i.jf });
        }
    }

    fn asked(number: libc::c_long, arguments: [u64; 6]) -> u32 {
        asked_of(&SANDBOX, number, arguments)
    }

    fn asked_of(filter: &Filter, number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let program = Program::compile(filter).unwrap();
        run(&program, NATIVE, u32::try_from(number).unwrap(), arguments)
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
    }

    #[test]
    fn the_tree_agrees_with_the_table_for_every_number() {
        for filter in [&SANDBOX, &SERVICE, &SERVICE_WITH_TCP] {
            let program = Program::compile(filter).unwrap();
            for number in 0..600 {
                let due = filter
                    .groups
                    .iter()
                    .copied()
                    .flatten()
                    .find(|(n, _)| *n == libc::c_long::from(number))
                    .map(|(_, rule)| *rule);
                let simple = match due {
                    Some(Rule::Always(verdict)) => verdict,
                    None => filter.default,
                    Some(_) => continue,
                };
                let is = run(&program, NATIVE, number, [0; 6]);
                assert_eq!(is, answer(simple).k, "system call {number}");
            }
        }
    }

    #[test]
    fn other_architectures_and_x32_are_shut_out() {
        let program = Program::compile(&SANDBOX).unwrap();
        let i386 = 0x4000_0003;
        assert_eq!(run(&program, i386, 1, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(
            run(&program, NATIVE, BEYOND + 1, [0; 6]),
            errno(libc::ENOSYS)
        );
        assert_eq!(run(&program, NATIVE, u32::MAX, [0; 6]), errno(libc::ENOSYS));
    }

    #[test]
    fn sockets_are_those_of_a_list_by_family_type_and_protocol() {
        let of = |value: i32| u64::from(value.unsigned_abs());
        let socket = |family: i32, kind: i32, protocol: i32| {
            let arguments = [of(family), of(kind), of(protocol), 0, 0, 0];
            asked(libc::SYS_socket, arguments)
        };
        let flags = [
            0,
            libc::SOCK_CLOEXEC,
            libc::SOCK_NONBLOCK,
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        ];
        for flags in flags {
            for family in [libc::AF_INET, libc::AF_INET6] {
                for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
                    for protocol in [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
                        assert_eq!(socket(family, kind | flags, protocol), ALLOW);
                    }
                    for protocol in 1..300 {
                        if protocol != libc::IPPROTO_TCP && protocol != libc::IPPROTO_UDP {
                            let is = socket(family, kind | flags, protocol);
                            assert_eq!(is, errno(libc::EPROTONOSUPPORT), "protocol {protocol}");
                        }
                    }
                }
                for kind in (0..16).filter(|kind| !matches!(kind, 1 | 2)) {
                    assert_eq!(socket(family, kind | flags, 0), errno(libc::EPERM));
                }
            }
            for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
                assert_eq!(socket(libc::AF_UNIX, kind | flags, 0), ALLOW);
            }
        }
        let listed = [
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
        ];
        for family in (0..256).filter(|family| !listed.contains(family)) {
            for kind in 0..16 {
                let is = socket(family, kind, 0);
                assert_eq!(is, errno(libc::EAFNOSUPPORT), "family {family}");
            }
        }
        for protocol in 0..40 {
            let is = socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol);
            let due = if protocol == 0 {
                ALLOW
            } else {
                errno(libc::EAFNOSUPPORT)
            };
            assert_eq!(is, due, "netlink {protocol}");
        }
        let option = |name| {
            asked(
                libc::SYS_setsockopt,
                [3, of(libc::IPPROTO_TCP), of(name), 1, 4, 0],
            )
        };
        assert_eq!(option(libc::TCP_ULP), errno(libc::ENOENT));
        assert_eq!(option(libc::TCP_NODELAY), ALLOW);
        for bridge_or_vlan in [0x8940, 0x8941, 0x8982, 0x8983, 0x89a0, 0x89a1] {
            let is = asked(libc::SYS_ioctl, [3, bridge_or_vlan, 0, 0, 0, 0]);
            assert_eq!(is, errno(libc::EPERM), "{bridge_or_vlan:#x}");
        }
        assert_eq!(
            asked(libc::SYS_ioctl, [3, libc::SIOCGIFINDEX, 0, 0, 0, 0]),
            ALLOW
        );
    }

    #[test]
    fn arguments_are_compared_by_the_half_that_the_kernel_reads() {
        let high = 0xffff_ffff_0000_0000;
        assert_eq!(
            asked(libc::SYS_ioctl, [1, libc::TIOCSTI, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
        assert_eq!(
            asked(libc::SYS_ioctl, [1, high | libc::TIOCSTI, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
        assert_eq!(asked(libc::SYS_ioctl, [1, libc::TCGETS, 0, 0, 0, 0]), ALLOW);
        let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
        assert_eq!(
            asked(libc::SYS_clone, [new_user | 17, 0, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
        assert_eq!(asked(libc::SYS_clone, [17, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(asked(libc::SYS_clone3, [0; 6]), errno(libc::ENOSYS));
    }

    #[test]
    fn limits_of_init_cannot_be_changed() {
        let files = u64::from(libc::RLIMIT_NOFILE);
        for pid in [1, 0xffff_ffff_0000_0001] {
            assert_eq!(
                asked(libc::SYS_prlimit64, [pid, files, 4096, 0, 0, 0]),
                errno(libc::EPERM)
            );
        }
        assert_eq!(asked(libc::SYS_prlimit64, [2, files, 4096, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn nothing_that_no_cgroup_counts_can_be_asked_for() {
        let of = |value: i32| u64::from(value.unsigned_abs());
        let option = |level, name| asked(libc::SYS_setsockopt, [3, of(level), of(name), 1, 4, 0]);
        for filter in [
            libc::SO_ATTACH_FILTER,
            libc::SO_ATTACH_BPF,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            libc::SO_ATTACH_REUSEPORT_EBPF,
        ] {
            assert_eq!(option(libc::SOL_SOCKET, filter), errno(libc::EPERM));
        }
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_RCVBUF), errno(0));
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_REUSEADDR), ALLOW);
        // The same number at another level.
        assert_eq!(libc::IPV6_V6ONLY, libc::SO_ATTACH_FILTER);
        assert_eq!(option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), ALLOW);
        for (level, name) in [
            (libc::IPPROTO_IPV6, libc::IPV6_FLOWLABEL_MGR),
            (libc::IPPROTO_TCP, libc::TCP_MD5SIG),
            (libc::IPPROTO_TCP, 32),  // TCP_MD5SIG_EXT
            (libc::IPPROTO_TCP, 38),  // TCP_AO_ADD_KEY
            (libc::IPPROTO_UDP, 100), // UDP_ENCAP
        ] {
            assert_eq!(
                option(level, name),
                errno(libc::ENOPROTOOPT),
                "{level} {name}"
            );
        }
        assert_eq!(option(libc::IPPROTO_UDP, 104), ALLOW); // UDP_GRO

        assert_eq!(
            asked(libc::SYS_prctl, [of(libc::PR_SET_SECCOMP), 2, 0, 0, 0, 0]),
            errno(libc::EINVAL)
        );
        assert_eq!(
            asked(libc::SYS_prctl, [of(libc::PR_SET_NAME), 0, 0, 0, 0, 0]),
            ALLOW
        );
        for option in [
            62, /* PR_SCHED_CORE */
            67, /* PR_SET_MEMORY_MERGE */
        ] {
            let call = asked(libc::SYS_prctl, [option, 1, 0, 0, 0, 0]);
            assert_eq!(call, errno(libc::EINVAL), "{option}");
        }
        let advise = |advice| asked(libc::SYS_madvise, [4096, 4096, of(advice), 0, 0, 0]);
        assert_eq!(advise(libc::MADV_MERGEABLE), errno(libc::EINVAL));
        assert_eq!(advise(libc::MADV_DONTNEED), ALLOW);
        let names = [of(libc::PR_SET_VMA), 0, 0, 4096, 0, 0];
        assert_eq!(asked(libc::SYS_prctl, names), errno(libc::EINVAL));
        assert_eq!(asked(libc::SYS_mbind, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(asked(libc::SYS_set_mempolicy, [0; 6]), ALLOW);
        let filter = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        assert_eq!(
            asked(libc::SYS_seccomp, [filter, 0, 0, 0, 0, 0]),
            errno(libc::EINVAL)
        );

        let huge = of(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB);
        let map = |flags| asked(libc::SYS_mmap, [0, 4096, 3, flags, 0, 0]);
        assert_eq!(map(huge), errno(libc::ENOMEM));
        assert_eq!(map(of(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)), ALLOW);
        let share = |flags| asked(libc::SYS_shmget, [0, 4096, of(flags), 0, 0, 0]);
        assert_eq!(
            share(libc::IPC_CREAT | 0o4000 /* SHM_HUGETLB */),
            errno(libc::ENOMEM)
        );
        assert_eq!(share(libc::IPC_CREAT | 0o600), ALLOW);
        let memory = |flags: u32| asked(libc::SYS_memfd_create, [0, u64::from(flags), 0, 0, 0, 0]);
        assert_eq!(memory(libc::MFD_HUGETLB), errno(libc::ENOSYS));
        assert_eq!(memory(libc::MFD_CLOEXEC), ALLOW);

        let control = |command| asked(libc::SYS_fcntl, [3, of(command), 0, 0, 0, 0]);
        for command in [
            libc::F_OFD_GETLK,
            libc::F_OFD_SETLK,
            libc::F_OFD_SETLKW,
            libc::F_SETLEASE,
        ] {
            assert_eq!(control(command), errno(libc::EINVAL));
        }
        for command in [libc::F_GETLK, libc::F_SETLK, libc::F_SETLKW, libc::F_SETFL] {
            assert_eq!(control(command), ALLOW);
        }
    }

    #[test]
    fn a_whiteout_is_made_by_no_renaming() {
        let rename = |flags: u64| asked(libc::SYS_renameat2, [0, 0, 0, 0, flags, 0]);
        for flags in [4, 5, 0xffff_ffff_0000_0004] {
            assert_eq!(rename(flags), errno(libc::EINVAL));
        }
        for flags in [libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE] {
            assert_eq!(rename(u64::from(flags)), ALLOW);
        }
    }

    #[test]
    fn the_core_limit_cannot_be_changed() {
        let core = u64::from(libc::RLIMIT_CORE);
        assert_eq!(
            asked(libc::SYS_prlimit64, [0, core, 4096, 0, 0, 0]),
            errno(0)
        );
        assert_eq!(
            asked(libc::SYS_prlimit64, [0, core, 1 << 40, 0, 0, 0]),
            errno(0)
        );
        assert_eq!(asked(libc::SYS_prlimit64, [0, core, 0, 4096, 0, 0]), ALLOW);
        assert_eq!(
            asked(
                libc::SYS_prlimit64,
                [0, u64::from(libc::RLIMIT_NOFILE), 4096, 0, 0, 0]
            ),
            ALLOW
        );
    }

    #[test]
    fn a_service_runs_nothing_and_reaches_nobody() {
        let socket = |filter, family: i32| {
            let family = u64::from(family.unsigned_abs());
            asked_of(filter, libc::SYS_socket, [family, 1, 0, 0, 0, 0])
        };
        for (filter, tcp) in [(&SERVICE, false), (&SERVICE_WITH_TCP, true)] {
            for number in [libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace] {
                assert_eq!(asked_of(filter, number, [0; 6]), errno(libc::EPERM));
            }
            let executable = u64::from((libc::PROT_EXEC | libc::PROT_READ).unsigned_abs());
            for number in [libc::SYS_mmap, libc::SYS_mprotect] {
                let protection = |bits| asked_of(filter, number, [0, 4096, bits, 0, 0, 0]);
                assert_eq!(protection(executable), errno(libc::EPERM));
                assert_eq!(protection(1), ALLOW);
            }
            assert_eq!(socket(filter, libc::AF_UNIX), ALLOW);
            let other = if tcp {
                ALLOW
            } else {
                errno(libc::EAFNOSUPPORT)
            };
            assert_eq!(socket(filter, libc::AF_INET), other);
            assert_eq!(socket(filter, libc::AF_INET6), other);
            assert_eq!(socket(filter, libc::AF_NETLINK), errno(libc::EAFNOSUPPORT));
        }
    }

    #[test]
    fn the_first_groups_rule_counts_and_two_in_one_group_are_an_error() {
        const FIRST: &[(libc::c_long, Rule)] = &[(7, Rule::Always(Verdict::Errno(5)))];
        const SECOND: &[(libc::c_long, Rule)] = &[(7, Rule::Always(Verdict::Allow))];
        const TWICE: &[(libc::c_long, Rule)] = &[
            (7, Rule::Always(Verdict::Allow)),
            (7, Rule::Always(Verdict::Errno(5))),
        ];
        let filter = |groups| Filter {
            default: Verdict::Errno(1),
            groups,
        };
        assert_eq!(asked_of(&filter(&[FIRST, SECOND]), 7, [0; 6]), errno(5));
        assert_eq!(asked_of(&filter(&[SECOND, FIRST]), 7, [0; 6]), ALLOW);
        assert!(Program::compile(&filter(&[TWICE])).is_err());
        assert!(Program::compile(&filter(&[FIRST, TWICE])).is_ok());
    }
}
