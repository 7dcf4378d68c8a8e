//! The daemon's socket: who may connect, and what each client may cost.
//!
//! | file | concern |
//! |---|---|
//! | [`socket`] | the socket and its rights; one daemon at a time |
//! | [`peer`] | who a client is |
//! | [`connection`] | one client, within its bounds |

pub mod connection;
pub mod peer;
pub mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::daemon::Handle;
use crate::protocol::{Answer, ErrorCode, Failure, Reply};
use connection::Connection;
use peer::Peer;
use socket::Listening;

/// Clients that are served at once.
pub const CLIENTS: usize = 64;
/// After a failed accept (no descriptors are left, say).
const PAUSE: Duration = Duration::from_millis(100);

/// What serving takes.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub listening: Listening,
    /// Whom to ask.
    pub core: Handle,
    /// Who may change things, besides root.
    pub admin_gid: Option<u32>,
}

/// Counts a client for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// Serves for ever. Clients go when this is dropped with its runtime.
    pub async fn serve(self) {
        let room = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let stream = match self.listening.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!("accepting a client: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                refuse(stream);
                continue;
            };
            let peer = match Peer::of(&stream) {
                Ok(peer) => peer,
                Err(error) => {
                    tracing::warn!("a client without credentials: {error}");
                    continue;
                }
            };
            self.core.clients().fetch_add(1, Ordering::Relaxed);
            let counted = Counted(Arc::clone(self.core.clients()));
            let connection = Connection {
                may_change: peer.may_change(self.admin_gid),
                peer,
                core: self.core.clone(),
            };
            tokio::spawn(async move {
                connection.serve(stream).await;
                drop((permit, counted));
            });
        }
    }
}

/// Tells one client too many.
fn refuse(mut stream: UnixStream) {
    tokio::spawn(async move {
        let failure = Failure {
            code: ErrorCode::Busy,
            message: format!("{CLIENTS} clients are connected already: try again later"),
        };
        if let Ok(mut line) = serde_json::to_vec(&Reply::new(None, Answer::Error(failure))) {
            line.push(b'\n');
            let _ = tokio::time::timeout(PAUSE, stream.write_all(&line)).await;
        }
    });
}
