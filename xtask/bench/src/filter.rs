//! A seccomp filter for the peers: about as long as a real one, and nothing that it refuses is needed.
//!
//! Without one the comparison would be with a sandbox that does less. bubblewrap takes it as the bytes
//! of `struct sock_filter[]` (linux/filter.h), in the machine's byte order.

use anyhow::{Result, bail};

// linux/bpf_common.h and linux/seccomp.h
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO_EPERM: u32 = 0x0005_0001;
const KILL_PROCESS: u32 = 0x8000_0000;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// AUDIT_ARCH_… of linux/audit.h, and calls by number that no build needs: mounts, modules, reboot,
/// clocks, keys, tracing, namespaces.
struct Machine {
    architecture: u32,
    refused: &'static [u32],
}

const X86_64: Machine = Machine {
    architecture: 0xc000_003e,
    refused: &[
        101, 103, 134, 135, 136, 139, 153, 154, 155, 156, 159, 161, 163, 164, 165, 166, 167, 168,
        169, 170, 171, 172, 173, 174, 175, 176, 177, 178, 179, 180, 205, 211, 212, 227, 246, 248,
        249, 250, 256, 272, 278, 279, 298, 300, 303, 304, 305, 308, 310, 311, 312, 313, 320, 321,
        323, 425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 440, 442, 443, 447, 448,
    ],
};

const AARCH64: Machine = Machine {
    architecture: 0xc000_00b7,
    refused: &[
        18, 39, 40, 41, 42, 51, 58, 60, 89, 92, 97, 104, 105, 106, 112, 116, 117, 142, 161, 162,
        170, 171, 217, 218, 219, 224, 225, 235, 236, 237, 238, 239, 241, 262, 264, 265, 266, 268,
        270, 271, 272, 273, 280, 282, 294, 425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 440,
        442, 443, 447, 448,
    ],
};

/// The filter for the machine that this runs on.
pub(super) fn program() -> Result<Vec<u8>> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(assemble(&X86_64)),
        "aarch64" => Ok(assemble(&AARCH64)),
        other => bail!("no filter for {other}: the peers cannot be compared there"),
    }
}

/// Check the architecture, compare with each refused call in turn, else allow.
fn assemble(machine: &Machine) -> Vec<u8> {
    let mut code = Vec::new();
    let mut put = |operation: u16, if_true: u8, if_false: u8, value: u32| {
        code.extend_from_slice(&operation.to_ne_bytes());
        code.extend_from_slice(&[if_true, if_false]);
        code.extend_from_slice(&value.to_ne_bytes());
    };
    put(LOAD_WORD, 0, 0, ARCHITECTURE);
    put(JUMP_IF_EQUAL, 1, 0, machine.architecture);
    put(RETURN, 0, 0, KILL_PROCESS);
    put(LOAD_WORD, 0, 0, NUMBER);
    for &call in machine.refused {
        put(JUMP_IF_EQUAL, 0, 1, call);
        put(RETURN, 0, 0, ERRNO_EPERM);
    }
    put(RETURN, 0, 0, ALLOW);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_has_eight_bytes() {
        for machine in [X86_64, AARCH64] {
            assert_eq!(
                assemble(&machine).len(),
                8 * (4 + 2 * machine.refused.len() + 1)
            );
            assert!(
                machine.refused.is_sorted(),
                "sorted, hence easy to compare with a header"
            );
        }
    }
}
