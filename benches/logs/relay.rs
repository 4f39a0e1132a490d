//! A relay between a client and the agent. It can cut the network between them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// How soon a connection notices a cut, or the end of its other half.
const NOTICE: Duration = Duration::from_millis(20);

/// The relay. It runs until the benchmark ends.
pub(crate) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    agent: Mutex<SocketAddr>,
    is_cut: AtomicBool,
}

impl Relay {
    /// Starts a relay to the agent with this address.
    pub(crate) fn start(agent: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            agent: Mutex::new(agent),
            is_cut: AtomicBool::new(false),
        });
        let own = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, state) = (client.unwrap(), Arc::clone(&own));
                thread::spawn(move || carry(&client, &state));
            }
        });
        Self { address, state }
    }

    /// The address to which clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the agent's address for later connections.
    pub(crate) fn set_agent(&self, agent: SocketAddr) {
        *self.state.agent.lock().unwrap() = agent;
    }

    /// Cuts the network. No byte passes in this time, also on new connections. At the end all these connections are reset.
    pub(crate) fn cut(&self, time: Duration) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        thread::sleep(time);
        self.state.is_cut.store(false, Ordering::SeqCst);
        // No connection looks less often than this, so each one ends.
        thread::sleep(2 * NOTICE);
    }
}

impl State {
    /// Returns at the end of a cut. Returns whether there was one.
    fn wait_for_cut(&self) -> bool {
        let was_cut = self.is_cut.load(Ordering::SeqCst);
        while self.is_cut.load(Ordering::SeqCst) {
            thread::sleep(NOTICE / 2);
        }
        was_cut
    }
}

/// Carries bytes between a client and the agent until one of them ends the connection, or until a cut. Then resets both sides.
fn carry(client: &TcpStream, state: &State) {
    let _ = SockRef::from(client).set_linger(Some(Duration::ZERO));
    if state.wait_for_cut() {
        return;
    }
    let agent = *state.agent.lock().unwrap();
    let Ok(agent) = TcpStream::connect(agent) else {
        return;
    };
    let _ = SockRef::from(&agent).set_linger(Some(Duration::ZERO));
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for (from, to) in [(client, &agent), (&agent, client)] {
            let has_ended = &has_ended;
            scope.spawn(move || {
                let _ = carry_one_way(from, to, has_ended, state);
                has_ended.store(true, Ordering::SeqCst);
            });
        }
    });
}

fn carry_one_way(
    mut from: &TcpStream,
    mut to: &TcpStream,
    has_ended: &AtomicBool,
    state: &State,
) -> io::Result<()> {
    from.set_read_timeout(Some(NOTICE / 2))?;
    let mut buffer = vec![0; 64 * 1024];
    while !has_ended.load(Ordering::SeqCst) {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Ok(0) => return Ok(()),
            other => other?,
        };
        // The bytes of a read during a cut are lost with the connection.
        if state.wait_for_cut() {
            return Ok(());
        }
        to.write_all(&buffer[..read])?;
    }
    Ok(())
}
