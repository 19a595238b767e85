//! The gRPC health service: well when it says SERVING.

use super::{Outcome, tcp};
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 0 unknown, 1 serving, 2 not serving, 3 service unknown
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks `grpc.health.v1.Health/Check`.
pub async fn probe(host: &str, port: i32, service: &str) -> Outcome {
    let Ok(port) = u16::try_from(port) else { return Outcome::Unknown(format!("invalid port {port}")) };
    let address = tcp::join(host, port);
    let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
        Ok(e) => e,
        Err(e) => return Outcome::Unknown(e.to_string()),
    };
    let channel = match endpoint.connect().await {
        Ok(c) => c,
        Err(e) => {
            return Outcome::Failure(format!(
                "error: this server does not implement the grpc health protocol or is not reachable at {address}: {e}"
            ));
        }
    };
    let mut client = tonic::client::Grpc::new(channel);
    if let Err(e) = client.ready().await {
        return Outcome::Failure(format!("error: health rpc to {address} failed: {e}"));
    }
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    match client.unary(request, path, codec).await {
        Ok(r) if r.get_ref().status == 1 => Outcome::Success,
        Ok(r) => {
            let word = match r.get_ref().status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNRECOGNIZED",
            };
            Outcome::Failure(format!("service unhealthy (responded with \"{word}\")"))
        }
        Err(e) => Outcome::Failure(format!("error: health rpc failed: {}", e.message())),
    }
}
