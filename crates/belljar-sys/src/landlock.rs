//! Landlock (landlock(7)), with everything that is asked for a hard requirement.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

/// What may be done below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Read files, list directories, start programs.
    ReadExecute,
    /// Read files and list directories.
    Read,
    /// Everything but devices: also make, change, rename and remove.
    ReadWriteExecute,
    /// Read, write and ioctl an existing device node or one below a directory of them.
    Device,
    /// Read, make, change, rename and remove regular files and directories; nothing else, and nothing is executed.
    ReadWrite,
    /// Make and remove sockets in a directory.
    Listen,
}

impl Allowed {
    /// The word for it in descriptions of a ruleset.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadExecute => "read-execute",
            Self::Read => "read",
            Self::ReadWriteExecute => "read-write-execute",
            Self::Device => "device",
            Self::ReadWrite => "read-write",
            Self::Listen => "listen",
        }
    }

    fn rights(self, directory: bool) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let rights = match self {
            Self::Read => read,
            Self::ReadExecute => read | AccessFs::Execute,
            Self::ReadWriteExecute => {
                AccessFs::from_all(ABI_DEMANDED)
                    & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev)
            }
            Self::Device => read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
            Self::ReadWrite => {
                let change = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::Refer;
                let make = AccessFs::MakeReg | AccessFs::MakeDir;
                read | change | make | AccessFs::RemoveFile | AccessFs::RemoveDir
            }
            Self::Listen => AccessFs::MakeSock | AccessFs::RemoveFile,
        };
        if directory {
            rights
        } else {
            rights & AccessFs::from_file(ABI_DEMANDED)
        }
    }
}

/// The least ABI that has all that Belljar asks for: file rights with ioctl, scoped signals and abstract
/// unix sockets.
const ABI_DEMANDED: ABI = ABI::V6;

/// One rule.
#[derive(Debug)]
pub struct Rule<'a> {
    /// The file or directory, as an open descriptor (O_PATH suffices).
    pub path: BorrowedFd<'a>,
    /// Whether it is a directory.
    pub directory: bool,
    /// What is allowed there.
    pub allowed: Allowed,
}

/// The ABI version that the kernel offers; 0 when it has no Landlock or it is switched off.
pub fn abi() -> u32 {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    // WHY: the crate does not tell the version, only what it made of it.
    // SAFETY: a null attribute of size zero with this flag asks for the version; no memory is passed.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Confines this process and its future children to `rules`: every other file access that Landlock knows
/// is refused, and so are signals and connections over abstract unix sockets to processes outside.
/// no_new_privs must be set.
///
/// # Errors
/// When anything of it is not fully enforced.
pub fn restrict(rules: &[Rule<'_>]) -> io::Result<()> {
    enforce(with_rules(ruleset()?, rules)?)
}

/// The same, and of TCP nothing is left but to listen at `ports`, and to connect to the ports `connect`, of whatever
/// address.
///
/// # Errors
/// As [`restrict`].
pub fn restrict_with_tcp(rules: &[Rule<'_>], ports: &[u16], connect: &[u16]) -> io::Result<()> {
    let io = io::Error::other;
    let handled = ruleset()?
        .handle_access(AccessNet::from_all(ABI_DEMANDED))
        .map_err(io)?;
    let mut created = with_rules(handled, rules)?;
    let listen = ports.iter().map(|port| (*port, AccessNet::BindTcp));
    let connect = connect.iter().map(|port| (*port, AccessNet::ConnectTcp));
    for (port, right) in listen.chain(connect) {
        let rule = NetPort::new(port, right).set_compatibility(CompatLevel::HardRequirement);
        created = created.add_rule(rule).map_err(io)?;
    }
    enforce(created)
}

fn ruleset() -> io::Result<Ruleset> {
    let io = io::Error::other;
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI_DEMANDED))
        .map_err(io)?
        .scope(Scope::from_all(ABI_DEMANDED))
        .map_err(io)
}

fn with_rules(ruleset: Ruleset, rules: &[Rule<'_>]) -> io::Result<RulesetCreated> {
    let io = io::Error::other;
    let mut created = ruleset.create().map_err(io)?.no_new_privs(false);
    for rule in rules {
        let rights = rule.allowed.rights(rule.directory);
        let beneath = PathBeneath::new(rule.path.as_fd(), rights)
            .set_compatibility(CompatLevel::HardRequirement);
        created = created.add_rule(beneath).map_err(io)?;
    }
    Ok(created)
}

fn enforce(created: RulesetCreated) -> io::Result<()> {
    let status = created.restrict_self().map_err(io::Error::other)?;
    if status.ruleset == RulesetStatus::FullyEnforced {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "Landlock is only {:?}",
            status.ruleset
        )))
    }
}
