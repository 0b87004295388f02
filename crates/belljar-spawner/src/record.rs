//! What init and the spawner tell each other over their socket: records of one fixed size.

use std::io;

use belljar_sys::seqpacket::Connection;

/// One message. Sent by whom the variant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Spawner: you are in your cgroups, confine yourself.
    Placed,
    /// Init: the containment step with this index failed with this error number.
    StepFailed {
        /// Index into [`crate::containment::STEPS`].
        step: u32,
        /// errno(3), 0 when the failure was not one of the kernel's.
        errno: i32,
    },
    /// Init: this forbidden thing was tried.
    Probed {
        /// Index into [`belljar_sys::forbidden::ATTEMPTS`].
        attempt: u32,
        /// errno(3); 0 means that it succeeded.
        errno: i32,
    },
    /// Init: confined and probed; I wait.
    AtBarrier,
    /// Spawner: read back, go.
    Go,
    /// Init: the running step ended.
    StepEnded {
        /// Whether by a signal.
        signalled: bool,
        /// Exit status or signal number.
        code: u8,
        /// Wall-clock time in microseconds.
        micros: u64,
    },
    /// Init: a step could not be started.
    StartFailed {
        /// errno(3).
        errno: i32,
    },
    /// Init: no step is left to run.
    Done,
    /// Init: the working directory cannot be one, with this error number. Nothing was run.
    NoDirectory {
        /// errno(3).
        errno: i32,
    },
    /// Spawner: the next step may begin.
    Next,
    /// Spawner: send SIGTERM to everybody, run no further step, and tell when nobody is left.
    Terminate,
}

/// Tag, number, errno, and a 64-bit figure.
pub const SIZE: usize = 17;

impl Record {
    /// The record in its fixed size.
    pub fn to_bytes(self) -> [u8; SIZE] {
        let (tag, number, errno, figure) = match self {
            Self::Placed => (1, 0, 0, 0),
            Self::StepFailed { step, errno } => (2, step, errno, 0),
            Self::Probed { attempt, errno } => (3, attempt, errno, 0),
            Self::AtBarrier => (4, 0, 0, 0),
            Self::Go => (5, 0, 0, 0),
            Self::StepEnded {
                signalled,
                code,
                micros,
            } => (6, u32::from(signalled) << 8 | u32::from(code), 0, micros),
            Self::StartFailed { errno } => (7, 0, errno, 0),
            Self::Done => (8, 0, 0, 0),
            Self::NoDirectory { errno } => (9, 0, errno, 0),
            Self::Next => (10, 0, 0, 0),
            Self::Terminate => (11, 0, 0, 0),
        };
        let mut bytes = [0; SIZE];
        bytes[0] = tag;
        bytes[1..5].copy_from_slice(&u32::to_ne_bytes(number));
        bytes[5..9].copy_from_slice(&i32::to_ne_bytes(errno));
        bytes[9..].copy_from_slice(&u64::to_ne_bytes(figure));
        bytes
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Another length or an unknown tag.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "not a record");
        let fixed: &[u8; SIZE] = bytes.try_into().map_err(|_| unknown())?;
        let [tag, n0, n1, n2, n3, e0, e1, e2, e3, figure @ ..] = *fixed;
        let number = u32::from_ne_bytes([n0, n1, n2, n3]);
        let errno = i32::from_ne_bytes([e0, e1, e2, e3]);
        let micros = u64::from_ne_bytes(figure);
        Ok(match tag {
            1 => Self::Placed,
            2 => Self::StepFailed {
                step: number,
                errno,
            },
            3 => Self::Probed {
                attempt: number,
                errno,
            },
            4 => Self::AtBarrier,
            5 => Self::Go,
            6 => Self::StepEnded {
                signalled: number >> 8 != 0,
                code: u8::try_from(number & 0xff).unwrap_or(u8::MAX),
                micros,
            },
            7 => Self::StartFailed { errno },
            8 => Self::Done,
            9 => Self::NoDirectory { errno },
            10 => Self::Next,
            11 => Self::Terminate,
            _ => return Err(unknown()),
        })
    }

    /// Sends it.
    ///
    /// # Errors
    /// What sendmsg(2) says.
    pub fn send(self, connection: &Connection) -> io::Result<()> {
        connection.send(&self.to_bytes())
    }

    /// Waits for one; none when the other side is gone.
    ///
    /// # Errors
    /// What recvmsg(2) says, or a message that is not a record.
    pub fn receive(connection: &Connection) -> io::Result<Option<Self>> {
        let mut buffer = [0; SIZE];
        match connection.receive(&mut buffer)? {
            Some(received) => Self::from_bytes(&buffer[..received.length]).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_others_are_refused() {
        for record in [
            Record::Placed,
            Record::StepFailed { step: 7, errno: 13 },
            Record::Probed {
                attempt: 3,
                errno: 1,
            },
            Record::AtBarrier,
            Record::Go,
            Record::StepEnded {
                signalled: true,
                code: 9,
                micros: u64::MAX,
            },
            Record::StartFailed { errno: 2 },
            Record::Done,
            Record::NoDirectory { errno: 40 },
            Record::Next,
            Record::Terminate,
        ] {
            assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
        }
        assert!(Record::from_bytes(&[0; SIZE]).is_err());
        assert!(Record::from_bytes(&[1; SIZE - 1]).is_err());
    }
}
