//! Credentials and capabilities (credentials(7), capabilities(7)).

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use rustix::thread::{CapabilitiesSecureBits, Gid, Uid};

/// Drops all supplementary groups and takes one user and group id, in every slot.
///
/// # Errors
/// What setgroups(2), setresgid(2) or setresuid(2) say.
pub fn become_ids(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Empties the bounding set. Needs CAP_SETPCAP, so it comes before [`drop_capabilities`]; and it comes
/// after a user namespace is entered, which refills the set.
///
/// # Errors
/// What prctl(2) says.
pub fn empty_bounding_set() -> io::Result<()> {
    // By number and up to the first unknown one: a newer kernel may know more than the crate.
    for number in 0..64 {
        // WHY: the crates' typed lists of capabilities end with those that were known when they were made.
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } == -1 {
            return match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINVAL) && number > 0 => Ok(()),
                error => Err(error),
            };
        }
    }
    Ok(())
}

/// Locks the secure bits so that user id 0 is never special to this process and its children, and no
/// ambient capability can be raised (prctl(2), PR_SET_SECUREBITS).
///
/// # Errors
/// What prctl(2) says.
pub fn lock_secure_bits() -> io::Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    Ok(rustix::thread::set_capabilities_secure_bits(bits)?)
}

/// Empties the ambient, effective, permitted and inheritable sets.
///
/// # Errors
/// What prctl(2) or capset(2) say.
pub fn drop_capabilities() -> io::Result<()> {
    keep_capabilities(&CapsHashSet::new())
}

/// Keeps, in the permitted and effective sets, the one capability that lets a process read what the
/// mode bits of a file would hide (CAP_DAC_READ_SEARCH), and empties everything else.
///
/// # Errors
/// What prctl(2) or capset(2) say.
pub fn keep_only_read_search() -> io::Result<()> {
    keep_capabilities(&CapsHashSet::from([Capability::CAP_DAC_READ_SEARCH]))
}

fn keep_capabilities(kept: &CapsHashSet) -> io::Result<()> {
    let io = io::Error::other;
    caps::clear(None, CapSet::Ambient).map_err(io)?;
    caps::clear(None, CapSet::Inheritable).map_err(io)?;
    caps::set(None, CapSet::Effective, kept).map_err(io)?;
    caps::set(None, CapSet::Permitted, kept).map_err(io)
}

/// Sets the no_new_privs bit: execve(2) never gives more than the caller has.
///
/// # Errors
/// What prctl(2) says.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}
