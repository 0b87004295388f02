use belljar_wire::Problem;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::Caller;
use crate::listen::Peer;
use crate::remote::{Door, Refusal};
use crate::rules::Rules;

/// Stands before every service: knows who calls by what the connection proves, and turns away who is a
/// member of no project.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    rules: Rules,
    door: Door,
}

impl Gate {
    pub(crate) fn new(rules: Rules, door: Door) -> Self {
        Self { rules, door }
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<Peer>();
        let Some(identity) = peer.and_then(|peer| peer.0.clone()) else {
            let why = "identity: the kernel does not tell who calls";
            self.door.refused(Refusal::Identity, &"nobody", &why);
            return Err(Problem::denied([why]).into());
        };
        let grants = self.rules.policy().grants(&identity);
        if grants.is_empty() {
            let what = "a member of no project";
            self.door.refused(Refusal::Stranger, &identity, &what);
            let why = format!(
                "identity: {identity} is {what} here; the operator says who is in belljard.toml"
            );
            return Err(Problem::denied([why.as_str()]).into());
        }
        let caller = Caller::new(identity, grants, self.door.clone());
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}
