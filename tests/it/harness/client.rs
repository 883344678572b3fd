//! A client for what OpenSSH's can't do: send signals, and tell by which one a command ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Config, Handle, Handler, Msg};
use russh::keys::{
    Certificate, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key,
};
use russh::{Channel, ChannelMsg, Sig};
use tokio::time::timeout;

use super::{Relay, SOON, User, Way, own_login};

/// Runs a future of a test, bounded.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(120), future).await.unwrap() })
}

/// A connection to the relay on which the user's key was taken for proof.
async fn proved(relay: &Relay, user: &User, name: &str) -> Handle<AnyKey> {
    let config = Arc::new(Config::default());
    let mut outer = client::connect(config, relay.ssh(), AnyKey).await.unwrap();
    let key = Arc::new(load_secret_key(user.key(), None).unwrap());
    let key = PrivateKeyWithHashAlg::new(key, None);
    let proved = outer.authenticate_publickey(name, key).await.unwrap();
    assert!(proved.success(), "{proved:?}");
    outer
}

/// An authenticated connection whose sessions are a device's.
pub(crate) struct SshClient {
    inner: Handle<AnyKey>,
    /// The connection that carries `inner` on the jump way.
    _outer: Option<Handle<AnyKey>>,
}

impl SshClient {
    pub(crate) async fn connect(relay: &Relay, user: &User, way: Way, device: &str) -> Self {
        let login = own_login();
        let name = match way {
            Way::Direct => format!("{login}+{device}"),
            Way::Jump => "operator".to_owned(),
        };
        let outer = proved(relay, user, &name).await;
        if way == Way::Direct {
            return Self {
                inner: outer,
                _outer: None,
            };
        }
        let channel = outer
            .channel_open_direct_tcpip(device, 22, "127.0.0.1", 1)
            .await;
        let stream = channel.unwrap().into_stream();
        let config = Arc::new(Config::default());
        let mut inner = client::connect_stream(config, stream, AnyKey)
            .await
            .unwrap();
        let proved = inner.authenticate_none(login).await.unwrap();
        assert!(matches!(proved, AuthResult::Success), "{proved:?}");
        Self {
            inner,
            _outer: Some(outer),
        }
    }

    /// A connection whose sessions are the relay's own console.
    pub(crate) async fn console(relay: &Relay, user: &User) -> Self {
        Self {
            inner: proved(relay, user, "operator").await,
            _outer: None,
        }
    }

    /// Returns whether the user's certificate, `key-cert.pub`, is taken for proof.
    pub(crate) async fn proves_by_certificate(relay: &Relay, user: &User) -> bool {
        let config = Arc::new(Config::default());
        let mut outer = client::connect(config, relay.ssh(), AnyKey).await.unwrap();
        let key = Arc::new(load_secret_key(user.key(), None).unwrap());
        let path = user.folder().join("key-cert.pub");
        let certificate = Certificate::read_file(&path).unwrap();
        let proved = outer.authenticate_openssh_cert(user.name(), key, certificate);
        proved.await.unwrap().success()
    }

    /// Returns whether the user's RSA key is taken for proof with a signature of this kind; `None` is SHA-1, whatever
    /// the relay says that it takes.
    pub(crate) async fn proves_by_rsa(relay: &Relay, user: &User, hash: Option<HashAlg>) -> bool {
        let config = Arc::new(Config::default());
        let mut outer = client::connect(config, relay.ssh(), AnyKey).await.unwrap();
        let key = Arc::new(load_secret_key(user.key(), None).unwrap());
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let proved = outer.authenticate_publickey(user.name(), key);
        proved.await.unwrap().success()
    }

    /// Starts a command, without a terminal.
    pub(crate) async fn exec(&self, line: &str) -> Session {
        let channel = self.inner.channel_open_session().await.unwrap();
        channel.exec(true, line).await.unwrap();
        Session {
            channel,
            end: ClientEnd::default(),
        }
    }
}

impl SshClient {
    /// Opens a session channel on which nothing is started; `None` if it is refused.
    pub(crate) async fn try_open(&self) -> Option<Channel<Msg>> {
        self.inner.channel_open_session().await.ok()
    }
}

/// A command that runs.
pub(crate) struct Session {
    channel: Channel<Msg>,
    end: ClientEnd,
}

/// The exit of a command, and its output.
#[derive(Debug, Default)]
pub(crate) struct ClientEnd {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: Option<u32>,
    pub(crate) signal: Option<Sig>,
}

impl Session {
    pub(crate) async fn signal(&self, signal: Sig) {
        self.channel.signal(signal).await.unwrap();
    }

    /// Waits until `text` is on its stdout.
    pub(crate) async fn wait_out(&mut self, text: &str) {
        while !self.end.stdout.contains(text) {
            assert!(self.step().await, "no {text:?} in {:?}", self.end);
        }
    }

    /// Starts a command on a channel that was opened before.
    pub(crate) async fn exec_on(channel: Channel<Msg>, line: &str) -> Self {
        channel.exec(true, line).await.unwrap();
        Self {
            channel,
            end: ClientEnd::default(),
        }
    }

    /// Sends text to its stdin.
    pub(crate) async fn send(&self, text: &str) {
        self.channel.data(text.as_bytes()).await.unwrap();
    }

    /// Closes the channel.
    pub(crate) async fn close(self) {
        self.channel.close().await.unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn wait(mut self) -> ClientEnd {
        while self.step().await {}
        self.end
    }

    /// Takes the next message; says whether there was one.
    async fn step(&mut self) -> bool {
        let message = timeout(SOON, self.channel.wait()).await;
        let end = &mut self.end;
        match message.unwrap_or_else(|_| panic!("nothing more comes after {end:?}")) {
            Some(ChannelMsg::Data { data }) => end.stdout += &String::from_utf8_lossy(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                end.stderr += &String::from_utf8_lossy(&data);
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => end.status = Some(exit_status),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => end.signal = Some(signal_name),
            Some(_) => {}
            None => return false,
        }
        true
    }
}

/// Accepts any host key: OpenSSH's client checks it in other tests.
struct AnyKey;

impl Handler for AnyKey {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}
