//! A descriptor of ours becomes one of the target's: what SCM_RIGHTS is for (unix(7)).
//!
//! ```text
//! target                                      upatch
//! socket(AF_UNIX)            ──pidfd_getfd──► the same socket: name it, connect it to itself, empty it
//! recvmsg  ◄───────────────────────────────── sendmsg(SCM_RIGHTS)
//! close the socket
//! ```
//! One socket, connected to itself, so that nobody else can send to it. Killed before it has its name, it is closed by the
//! stub (`call_undone`); afterwards `sockets` finds it by the name.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, bind, connect, recv, sendmsg};

use super::failpoint::{FailPoint, reach};
use super::handle::{Process, ProcessError};
use super::hold::{Arg, HeldThread, RemoteError};
use super::remote::RemoteFd;

/// How the abstract names of our sockets begin.
const PREFIX: &str = "upatch-passing:";
/// `struct msghdr` of x86-64, without name and data: only a place for a control message behind it.
const HEADER: usize = 56;
const CONTROL_AT: usize = 32;
const CONTROL_LEN_AT: usize = 40;
/// `struct cmsghdr` and one descriptor, padded.
const CONTROL: usize = 24;

fn passing(call: &'static str) -> impl Fn(Errno) -> RemoteError {
    move |errno| RemoteError::Passing {
        call,
        source: errno.into(),
    }
}

impl HeldThread<'_> {
    /// Makes the target hold what `fd` means to us; closed on exec.
    ///
    /// # Errors
    /// [`RemoteError::Failed`]: the target can't make a socket (it may be at its limit of descriptors).
    /// [`RemoteError::Passing`]: we can't use it; EPERM or ENOSYS of `pidfd_getfd` where that isn't permitted or not there.
    /// [`RemoteError::NotTaken`]: it arrived without the descriptor. Nothing stays open in the target.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> Result<RemoteFd, RemoteError> {
        let number = |bits: i32| Arg::Number(u64::from(bits.unsigned_abs()));
        let none = Arg::Number(0);
        let args = [
            number(libc::AF_UNIX),
            number(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC),
            none,
            none,
            none,
            none,
        ];
        let socket = RemoteFd(self.call_undone("socket", libc::SYS_socket, args)?);
        reach(FailPoint::SocketOpen);
        let received = self.receive_through(socket, fd);
        match (received, self.close(socket)) {
            (Ok(fd), Ok(())) => Ok(fd),
            (Ok(fd), Err(error)) => {
                self.close(fd)?;
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn receive_through(
        &mut self,
        socket: RemoteFd,
        fd: BorrowedFd<'_>,
    ) -> Result<RemoteFd, RemoteError> {
        let number = i32::try_from(socket.0).unwrap_or(-1);
        let ours = self
            .process()
            .descriptor(number)
            .map_err(|source| RemoteError::Passing {
                call: "pidfd_getfd",
                source,
            })?;
        occupy(&ours)?;
        reach(FailPoint::SocketNamed);
        sendmsg::<()>(
            ours.as_raw_fd(),
            &[],
            &[ControlMessage::ScmRights(&[fd.as_raw_fd()])],
            MsgFlags::MSG_DONTWAIT,
            None,
        )
        .map_err(passing("sendmsg"))?;
        let mut message = [0; HEADER + CONTROL];
        message[CONTROL_LEN_AT..CONTROL_LEN_AT + 8]
            .copy_from_slice(&(CONTROL as u64).to_le_bytes());
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let none = Arg::Number(0);
        let args = [
            Arg::Number(socket.0),
            Arg::Pointing {
                bytes: &message,
                at: CONTROL_AT,
                to: HEADER as u64,
            },
            Arg::Number(u64::from(flags.unsigned_abs())),
            none,
            none,
            none,
        ];
        self.call("recvmsg", libc::SYS_recvmsg, args)?;
        let answer = self.written(message.len())?;
        reach(FailPoint::Received);
        descriptor_in(&answer).ok_or(RemoteError::NotTaken)
    }
}

/// The socket gets a name that can be found, and itself as its only peer.
fn occupy(socket: &OwnedFd) -> Result<(), RemoteError> {
    let mut nonce = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut nonce))
        .map_err(|source| RemoteError::Passing {
            call: "/dev/urandom",
            source,
        })?;
    let name = format!("{PREFIX}{:016x}", u64::from_le_bytes(nonce));
    let address = UnixAddr::new_abstract(name.as_bytes()).map_err(passing("bind"))?;
    bind(socket.as_raw_fd(), &address).map_err(passing("bind"))?;
    connect(socket.as_raw_fd(), &address).map_err(passing("connect"))?;
    // Who saw the name before it was connected may have sent something; now nobody can any more.
    for _ in 0..1024 {
        let emptied = recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT);
        if emptied == Err(Errno::EAGAIN) {
            return Ok(());
        }
    }
    Err(RemoteError::Passing {
        call: "recv",
        source: io::Error::other("somebody sends to the socket"),
    })
}

/// The descriptor in what recvmsg left of header and control message.
fn descriptor_in(answer: &[u8]) -> Option<RemoteFd> {
    let word = |at: usize| Some(u32::from_le_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let signed = |at: usize| word(at).map(u32::cast_signed);
    // cmsg_len is 16 for its own header and 4 for the descriptor.
    let whole = word(CONTROL_LEN_AT)? as usize >= 20
        && word(HEADER)? == 20
        && signed(HEADER + 8)? == libc::SOL_SOCKET
        && signed(HEADER + 12)? == libc::SCM_RIGHTS;
    whole.then_some(RemoteFd(u64::from(word(HEADER + 16)?)))
}

/// Inodes of our sockets in the process's network namespace, forgotten by a killed `upatch` or in use at the moment.
pub(crate) fn sockets(process: &Process) -> Result<HashSet<u64>, ProcessError> {
    let table = process.read_text("net/unix")?;
    Ok(table.lines().filter_map(our_inode).collect())
}

/// `Num RefCount Protocol Flags Type St Inode Path` (proc_pid_net(5)); abstract names are shown with `@`.
fn our_inode(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace().skip(6);
    let inode = words.next()?.parse().ok()?;
    words
        .next()?
        .strip_prefix('@')?
        .starts_with(PREFIX)
        .then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_sockets_by_name() {
        let line =
            |name: &str| format!("00000000a5b4: 00000002 00000000 00000000 0002 01 77 {name}");
        assert_eq!(our_inode(&line("@upatch-passing:00aa")), Some(77));
        for other in [
            "",
            "upatch-passing:00aa",
            "@/tmp/x",
            "/run/upatch-passing:1",
        ] {
            assert_eq!(our_inode(&line(other)), None);
        }
        assert_eq!(
            our_inode("Num       RefCount Protocol Flags    Type St Inode Path"),
            None
        );
    }

    #[test]
    fn takes_only_whole_answers() {
        let mut answer = vec![0; HEADER + CONTROL];
        answer[CONTROL_LEN_AT] = 24;
        answer[HEADER] = 20;
        answer[HEADER + 8] = 1;
        answer[HEADER + 12] = 1;
        answer[HEADER + 16] = 9;
        assert_eq!(descriptor_in(&answer), Some(RemoteFd(9)));
        for (at, value) in [
            (CONTROL_LEN_AT, 0),
            (HEADER, 16),
            (HEADER + 8, 0),
            (HEADER + 12, 2),
        ] {
            let mut answer = answer.clone();
            answer[at] = value;
            assert_eq!(descriptor_in(&answer), None);
        }
        assert_eq!(descriptor_in(&[]), None);
    }
}
