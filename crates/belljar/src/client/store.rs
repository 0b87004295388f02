use std::time::Duration;

use belljar_core::Invalid;
use belljar_wire::{
    PinRecord, PinTarget, ScrubStatus, StoreStatus, Swept, pin_name, project_name, v1,
};
use tonic::{Request, Response, Status};

use super::{Client, Error, call};

/// How long all files of a store may take to be counted, and what nobody needs to be removed.
const LONG: Duration = Duration::from_secs(6 * 3600);

/// What is kept, and how the rest goes. Each is asked once: who was lost in the middle may look how it stands.
impl Client {
    /// How full the store is.
    pub(crate) async fn store_status(&self) -> Result<StoreStatus, Error> {
        let request = long(v1::GetStoreStatusRequest {});
        let answer = self.store.clone().get_store_status(request).await;
        parsed("asking how full the store is", answer)
    }

    /// Has what nobody needs removed.
    pub(crate) async fn collect_garbage(&self, all: bool) -> Result<Swept, Error> {
        let request = long(v1::CollectGarbageRequest { all });
        let answer = self.store.clone().collect_garbage(request).await;
        parsed("removing what nobody needs", answer)
    }

    /// Has all objects read.
    pub(crate) async fn scrub_store(&self) -> Result<ScrubStatus, Error> {
        let request = call(v1::ScrubStoreRequest {});
        let answer = self.store.clone().scrub_store(request).await;
        parsed("having all objects read", answer)
    }

    /// Keeps something.
    pub(crate) async fn pin(&self, target: &PinTarget, reason: &str) -> Result<PinRecord, Error> {
        let request = call(v1::CreatePinRequest {
            project: self.project.as_ref().map(project_name).unwrap_or_default(),
            pin: Some(v1::Pin {
                target: Some(target.into()),
                reason: reason.to_owned(),
                ..v1::Pin::default()
            }),
        });
        let answer = self.store.clone().create_pin(request).await;
        parsed("pinning", answer)
    }

    /// Keeps something no longer; gives the pin that there was.
    pub(crate) async fn unpin(&self, number: u64) -> Result<PinRecord, Error> {
        let doing = "unpinning";
        let name = pin_name(number);
        let request = call(v1::DeletePinRequest { name });
        let answer = self.store.clone().delete_pin(request).await;
        let answer = answer.map_err(|status| Error::call(doing, &status))?;
        let missing = || Error::answer(doing, Invalid::field("pin", "missing"));
        let pin = answer.into_inner().pin.ok_or_else(missing)?;
        PinRecord::try_from(pin).map_err(|invalid| Error::answer(doing, invalid))
    }

    /// What is pinned.
    pub(crate) async fn pins(&self) -> Result<Vec<PinRecord>, Error> {
        let doing = "asking what is pinned";
        let mut client = self.store.clone();
        let answer = client.list_pins(call(v1::ListPinsRequest {})).await;
        let answer = answer.map_err(|status| Error::call(doing, &status))?;
        let pins = answer.into_inner().pins.into_iter();
        let pins = pins.map(PinRecord::try_from).collect::<Result<_, _>>();
        pins.map_err(|invalid| Error::answer(doing, invalid))
    }
}

fn long<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LONG);
    request
}

fn parsed<A, B: TryFrom<A, Error = Invalid>>(
    doing: &'static str,
    answer: Result<Response<A>, Status>,
) -> Result<B, Error> {
    let answer = answer.map_err(|status| Error::call(doing, &status))?;
    B::try_from(answer.into_inner()).map_err(|invalid| Error::answer(doing, invalid))
}
