//! A device's upload streams.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use holdfast_protocol::codec::control::{self, ControlReader};
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::ingest::UploadStream;
use holdfast_protocol::wire::{
    InventoryPart, SegmentRefusal, SegmentRefused, UploadAnswer, UploadMessage,
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::recording::Recordings;
use crate::recording::ingest::UploadSlot;
use crate::recording::ingest::inventory::{IncomingInventory, InventoryFault, InventoryQuota};
use crate::recording::limits::MAX_UPLOAD_STREAMS;
use crate::tunnel::limits::CONTROL_READ;
use crate::tunnel::registry::Tunnel;
use crate::tunnel::uploads::UploadHandler;

impl UploadHandler for Recordings {
    fn serve(&self, tunnel: Arc<Tunnel>) -> BoxFuture<'_, ()> {
        Box::pin(serve(self, tunnel))
    }
}

/// Serves the upload streams of a tunnel until it is closed.
async fn serve(recordings: &Recordings, tunnel: Arc<Tunnel>) {
    let streams = Arc::new(Semaphore::new(MAX_UPLOAD_STREAMS));
    let inventories = InventoryQuota::default();
    while let Ok((send, receive)) = tunnel.connection.accept_bi().await {
        let Ok(turn) = streams.clone().try_acquire_owned() else {
            // Dropping the halves resets one and stops the other.
            continue;
        };
        let (recordings, tunnel) = (recordings.clone(), tunnel.clone());
        let inventories = inventories.clone();
        let stream = recordings.next_stream();
        tokio::spawn(async move {
            let _turn = turn;
            let mut upload = Upload {
                recordings,
                tunnel,
                stream,
                offered: None,
                pin: None,
                inventories,
                inventory: IncomingInventory::default(),
            };
            let done = upload.run(send, receive).await;
            upload.let_go();
            if let Err(why) = done {
                debug!(device = %upload.tunnel.device, why, "an upload stream ended");
            }
        });
    }
}

/// One stream, and what was offered on it last.
struct Upload {
    recordings: Recordings,
    tunnel: Arc<Tunnel>,
    stream: UploadStream,
    offered: Option<(SessionId, u32)>,
    /// Keeps what is known of that segment in memory while its bytes come, even if others are done with it.
    pin: Option<Arc<UploadSlot>>,
    inventories: InventoryQuota,
    inventory: IncomingInventory,
}

impl Upload {
    async fn run(
        &mut self,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), &'static str> {
        let mut reader = ControlReader::<UploadMessage>::default();
        loop {
            let chunk = receive.read_chunk(CONTROL_READ, true).await;
            let Some(chunk) = chunk.map_err(|_| "it was lost")? else {
                return Ok(());
            };
            let mut input = &chunk.bytes[..];
            while let Some(message) = reader
                .read(&mut input)
                .map_err(|_| "it broke the protocol")?
            {
                // A tunnel that was replaced has nothing to say: the newer one's offers count.
                if !self.tunnel.is_current() {
                    let _ = send.reset(VarInt::from_u32(0));
                    return Err("there is a newer tunnel");
                }
                for answer in self.take(message).await? {
                    let bytes = control::encode(&answer).map_err(|_| "an answer is too long")?;
                    send.write_all(&bytes).await.map_err(|_| "it was lost")?;
                }
            }
        }
    }

    async fn take(&mut self, message: UploadMessage) -> Result<Vec<UploadAnswer>, &'static str> {
        let id = match &message {
            UploadMessage::Finished(finished) => finished.session,
            UploadMessage::Gone(gone) => gone.session,
            UploadMessage::Offer(offer) => {
                let offered = Some((offer.session, offer.segment));
                if self
                    .offered
                    .is_some_and(|(before, _)| before != offer.session)
                {
                    self.let_go();
                }
                self.offered = offered;
                self.pin = Some(self.recordings.slot(offer.session));
                offer.session
            }
            UploadMessage::Bytes(_) => self.offered.ok_or("bytes of nothing")?.0,
            UploadMessage::Inventory(part) => return self.take_inventory(part).await,
        };
        let is_report = matches!(message, UploadMessage::Finished(_) | UploadMessage::Gone(_));
        let segment = self.offered.map(|(_, segment)| segment);
        let taken = self
            .recordings
            .take(self.tunnel.device, id, self.stream, message, segment);
        let refused = |why| {
            let segment = segment.unwrap_or(0);
            UploadAnswer::Refused(SegmentRefusal {
                session: id,
                segment,
                why,
            })
        };
        match taken.await {
            Ok(Some(answers)) => Ok(answers),
            // There is no one to report it to; the device may forget it.
            Ok(None) if is_report => Ok(vec![UploadAnswer::Noted(id)]),
            Ok(None) => Ok(vec![refused(SegmentRefused::UnknownSession)]),
            Err(error) => {
                warn!(recording = %id, %error, "an upload cannot be taken now");
                match is_report {
                    true => Err("a report cannot be kept"),
                    false => Ok(vec![refused(SegmentRefused::Unavailable)]),
                }
            }
        }
    }

    async fn take_inventory(
        &mut self,
        part: &InventoryPart,
    ) -> Result<Vec<UploadAnswer>, &'static str> {
        let checked = self.inventory.check(part, &self.inventories);
        checked.map_err(|fault| match fault {
            InventoryFault::Part => "a part of an inventory is out of place",
            InventoryFault::TooMany => "it sends its inventory too often",
        })?;
        let (device, opened) = (self.tunnel.device, self.tunnel.opened);
        let taken = self
            .recordings
            .take_inventory(device, opened, &mut self.inventory, part);
        taken.await.map_err(|error| {
            warn!(%device, %error, "an inventory cannot be compared now");
            "an inventory cannot be compared"
        })?;
        Ok(vec![UploadAnswer::Listed(part.part)])
    }

    fn let_go(&mut self) {
        self.pin = None;
        if let Some((id, _)) = self.offered {
            self.recordings.forget(id);
        }
    }
}
