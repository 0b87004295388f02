use std::sync::Arc;

use belljar_policy::{Identity, Policy};
use belljar_wire::Problem;
use tonic::service::Interceptor;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// Stands before every service: knows who calls by what the kernel noted when they connected (SO_PEERCRED,
/// unix(7)), and turns away whom the operator has not listed.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Policy>);

impl Gate {
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        Self(policy)
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let credentials = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred);
        let Some(credentials) = credentials else {
            return Err(Problem::denied(["identity: the kernel does not tell who calls"]).into());
        };
        let uid = credentials.uid();
        if !self.0.allows_uid(uid) {
            tracing::warn!(uid, "turned away");
            let why = format!(
                "identity: user id {uid} is not allowed here; the operator lists who is in `allowed_uids`"
            );
            return Err(Problem::denied([why.as_str()]).into());
        }
        request.extensions_mut().insert(Identity::Unix { uid });
        Ok(request)
    }
}

/// Who calls, as the gate noted it.
pub(super) fn identity<T>(request: &Request<T>) -> Result<Identity, Status> {
    let identity = request.extensions().get::<Identity>().copied();
    identity.ok_or_else(|| Problem::denied(["identity: nobody has looked who calls"]).into())
}
