//! Uploads: what a device says of a recording, in good order.

use anyhow::{Result, bail};
use holdfast_protocol::limits::{MAX_UPLOAD_CHUNK, UPLOAD_IN_FLIGHT};
use holdfast_protocol::wire::{
    OfferedSegment, SegmentBytes, SessionFinished, UploadAnswer, UploadMessage,
};

use super::tape::Sealed;
use super::{ControlStream, HostileDevice};

impl HostileDevice {
    /// Opens an upload stream.
    ///
    /// # Errors
    /// The relay allows none.
    pub async fn upload_stream(&self) -> Result<ControlStream<UploadAnswer>> {
        ControlStream::open(&self.connection).await
    }

    /// Uploads a recording and its report, and waits until the relay keeps both.
    ///
    /// # Errors
    /// The relay refuses it, with its answer.
    pub async fn upload(&self, sealed: &Sealed) -> Result<()> {
        let mut stream = self.upload_stream().await?;
        let offer = OfferedSegment {
            session: sealed.session,
            segment: 0,
            length: sealed.bytes.len() as u64,
            hash: sealed.hash,
            closed: true,
        };
        let answer = self
            .upload_segment(&mut stream, &offer, &sealed.bytes)
            .await?;
        if !matches!(answer, UploadAnswer::Stored(_)) {
            bail!("the relay answered {answer:?}");
        }
        stream.say(&UploadMessage::Finished(report(sealed))).await?;
        match stream.next().await {
            Some(UploadAnswer::Noted(_)) => Ok(()),
            answer => bail!("the relay answered {answer:?}"),
        }
    }

    /// Uploads a segment, and gives the answer that ends it.
    ///
    /// # Errors
    /// The relay ends the upload.
    pub async fn upload_segment(
        &self,
        stream: &mut ControlStream<UploadAnswer>,
        offer: &OfferedSegment,
        file: &[u8],
    ) -> Result<UploadAnswer> {
        stream.say(&UploadMessage::Offer(offer.clone())).await?;
        let mut sent = 0;
        loop {
            let held = match stream.next().await {
                Some(UploadAnswer::Have(held)) => held.offset,
                Some(answer) => return Ok(answer),
                None => bail!("the relay ended the upload"),
            };
            let most = usize::try_from(held + UPLOAD_IN_FLIGHT)?.min(file.len());
            sent = sent.max(usize::try_from(held)?);
            while sent < most {
                let end = most.min(sent + MAX_UPLOAD_CHUNK);
                let bytes = file[sent..end].to_vec();
                let offset = sent as u64;
                let bytes = UploadMessage::Bytes(SegmentBytes { offset, bytes });
                stream.say(&bytes).await?;
                sent = end;
            }
        }
    }
}

/// The report of a recording's end.
#[must_use]
pub fn report(sealed: &Sealed) -> SessionFinished {
    SessionFinished {
        session: sealed.session,
        why: Some(sealed.why),
        segments: 1,
        hash: sealed.hash,
    }
}
