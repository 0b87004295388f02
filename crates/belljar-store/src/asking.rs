use std::os::fd::AsFd as _;
use std::time::Duration;

use belljar_core::ObjectId;
use belljar_plan::store::{Answer, Consent};
use belljar_sys::poll::{self, Event, Interest};

use crate::channel::{Broken, Channel};
use crate::derive::Customer;
use crate::failed::Failed;

/// Asks who wants a tree what may be read for it.
pub(crate) struct Asking<'a> {
    channel: &'a mut Channel,
    broken: Option<Broken>,
}

impl<'a> Asking<'a> {
    pub(crate) fn new(channel: &'a mut Channel) -> Self {
        let broken = None;
        Self { channel, broken }
    }

    /// Tells what came of it, if somebody is there who can be told.
    pub(crate) fn end(self, answer: &Answer) -> Result<(), Broken> {
        match self.broken {
            Some(broken) => Err(broken),
            None => self.channel.answer(answer),
        }
    }
}

impl Customer for Asking<'_> {
    fn may(&mut self, object: ObjectId) -> Result<bool, Failed> {
        let wants = Answer::DerivationWants { object };
        let asked = self.channel.answer(&wants);
        match asked.and_then(|()| self.channel.consent()) {
            Ok(consent) => Ok(consent == Consent::Given {}),
            Err(broken) => {
                self.broken = Some(broken);
                let why = "who wants the tree did not say whether an object may be read for it";
                Err(Failed::refused(why))
            }
        }
    }

    /// Who waits says nothing unasked, so that something can be read means that it has hung up.
    fn is_there(&self) -> bool {
        let interest = Interest {
            descriptor: self.channel.as_fd(),
            event: Event::Readable,
        };
        let happened = poll::wait(&[interest], Some(Duration::ZERO));
        happened.is_ok_and(|happened| happened == [false])
    }
}
