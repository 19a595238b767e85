//! One method for each CRI call the kubelet makes.

use crate::types::image_service_client::ImageServiceClient;
use crate::types::runtime_service_client::RuntimeServiceClient;
use crate::types::*;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// What one answer may weigh; a node with thousands of images lists them in one message.
const MAX_MESSAGE: usize = 16 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is no unix socket.
    #[error("container runtime endpoint {0:?} is not a unix socket: use unix:///path or /path")]
    Endpoint(String),
    /// The runtime answered with an error, or did not answer.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Call {
        /// The gRPC code.
        code: Code,
        /// What the runtime says.
        message: String,
    },
    /// The answer lacks what CRI demands of it.
    #[error("the runtime answered {0} without {1}")]
    Incomplete(&'static str, &'static str),
}

impl Error {
    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Call { code: Code::NotFound, .. })
    }

    /// Whether the runtime does not offer the call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Error::Call { code: Code::Unimplemented, .. })
    }

    /// Whether the runtime could not be reached or took too long.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Call { code: Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, .. })
    }

    /// Whether the runtime says that what it did took longer than it was given.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Error::Call { code: Code::DeadlineExceeded, .. })
    }

    /// What the runtime says, without the code.
    pub fn message(&self) -> String {
        match self {
            Error::Call { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(s: tonic::Status) -> Self {
        Error::Call { code: s.code(), message: s.message().to_owned() }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// A connection to a container runtime. Clones share it; it connects when first used and again
/// whenever the runtime has been away.
#[derive(Clone)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
    timeout: Duration,
}

/// Reads an endpoint as upstream writes it: `unix:///run/containerd/containerd.sock`, or a path.
pub fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') { Ok(path.into()) } else { Err(Error::Endpoint(endpoint.into())) }
}

fn channel(path: PathBuf) -> Channel {
    // The address is never looked up: the connector goes to the socket.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

impl Runtime {
    /// Makes a client (within a tokio runtime) of the runtime at `endpoint`, with `image_endpoint` for images when it is not
    /// empty. `timeout` bounds each call but pulling images and those that carry their own.
    pub fn new(endpoint: &str, image_endpoint: &str, timeout: Duration) -> Result<Self> {
        let channel = channel(socket_path(endpoint)?);
        let images = match image_endpoint {
            "" => channel.clone(),
            other if other == endpoint => channel.clone(),
            other => self::channel(socket_path(other)?),
        };
        Ok(Runtime {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(images).max_decoding_message_size(MAX_MESSAGE),
            channel,
            timeout,
        })
    }

    /// The channel itself, for services beside CRI on the same socket.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        self.request_within(message, self.timeout)
    }

    fn request_within<T>(&self, message: T, limit: Duration) -> Request<T> {
        let mut r = Request::new(message);
        r.set_timeout(limit);
        r
    }

    /// The runtime's name and versions.
    pub async fn version(&self) -> Result<VersionResponse> {
        let m = VersionRequest { version: "0.1.0".into() };
        Ok(self.runtime.clone().version(self.request(m)).await?.into_inner())
    }

    /// Whether runtime and network are ready, with the handlers it offers.
    pub async fn status(&self) -> Result<StatusResponse> {
        Ok(self.runtime.clone().status(self.request(StatusRequest { verbose: false })).await?.into_inner())
    }

    /// The cgroup driver the runtime uses, where it tells.
    pub async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        Ok(self.runtime.clone().runtime_config(self.request(RuntimeConfigRequest {})).await?.into_inner())
    }

    /// Makes and starts a sandbox; answers its id.
    pub async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        let m = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        // network plugins may be slow: twice the usual time, as upstream
        let r = self
            .runtime
            .clone()
            .run_pod_sandbox(self.request_within(m, self.timeout * 2))
            .await?
            .into_inner();
        if r.pod_sandbox_id.is_empty() {
            return Err(Error::Incomplete("RunPodSandbox", "an id"));
        }
        Ok(r.pod_sandbox_id)
    }

    /// Stops a sandbox and what runs in it.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let m = StopPodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.clone().stop_pod_sandbox(self.request(m)).await?;
        Ok(())
    }

    /// Removes a sandbox and its containers.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let m = RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.clone().remove_pod_sandbox(self.request(m)).await?;
        Ok(())
    }

    /// One sandbox.
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        let m = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let r = self.runtime.clone().pod_sandbox_status(self.request(m)).await?.into_inner();
        r.status.ok_or(Error::Incomplete("PodSandboxStatus", "a status"))
    }

    /// The sandboxes that match.
    pub async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let m = ListPodSandboxRequest { filter };
        Ok(self.runtime.clone().list_pod_sandbox(self.request(m)).await?.into_inner().items)
    }

    /// Makes a container in a sandbox; answers its id.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let m = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let r = self.runtime.clone().create_container(self.request(m)).await?.into_inner();
        if r.container_id.is_empty() {
            return Err(Error::Incomplete("CreateContainer", "an id"));
        }
        Ok(r.container_id)
    }

    /// Starts a container.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let m = StartContainerRequest { container_id: id.into() };
        self.runtime.clone().start_container(self.request(m)).await?;
        Ok(())
    }

    /// Stops a container: its stop signal, then after `grace` SIGKILL.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let m = StopContainerRequest { container_id: id.into(), timeout: grace.as_secs() as i64 };
        self.runtime.clone().stop_container(self.request_within(m, self.timeout + grace)).await?;
        Ok(())
    }

    /// Removes a container.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let m = RemoveContainerRequest { container_id: id.into() };
        self.runtime.clone().remove_container(self.request(m)).await?;
        Ok(())
    }

    /// The containers that match.
    pub async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        let m = ListContainersRequest { filter };
        Ok(self.runtime.clone().list_containers(self.request(m)).await?.into_inner().containers)
    }

    /// One container.
    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let m = ContainerStatusRequest { container_id: id.into(), verbose: false };
        let r = self.runtime.clone().container_status(self.request(m)).await?.into_inner();
        r.status.ok_or(Error::Incomplete("ContainerStatus", "a status"))
    }

    /// Changes the limits of a running container.
    pub async fn update_container_resources(&self, m: UpdateContainerResourcesRequest) -> Result<()> {
        self.runtime.clone().update_container_resources(self.request(m)).await?;
        Ok(())
    }

    /// Has the runtime open the container's log file anew.
    pub async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let m = ReopenContainerLogRequest { container_id: id.into() };
        self.runtime.clone().reopen_container_log(self.request(m)).await?;
        Ok(())
    }

    /// Runs a command in a container and waits for it; a zero `limit` means no limit of its own.
    pub async fn exec_sync(&self, id: &str, cmd: Vec<String>, limit: Duration) -> Result<ExecSyncResponse> {
        let timeout = limit.as_secs_f64().ceil() as i64;
        let m = ExecSyncRequest { container_id: id.into(), cmd, timeout };
        let request = match limit.is_zero() {
            true => Request::new(m),
            false => self.request_within(m, self.timeout + limit),
        };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// The address at which the runtime serves this exec.
    pub async fn exec(&self, m: ExecRequest) -> Result<String> {
        Ok(self.runtime.clone().exec(self.request(m)).await?.into_inner().url)
    }

    /// The address at which the runtime serves this attach.
    pub async fn attach(&self, m: AttachRequest) -> Result<String> {
        Ok(self.runtime.clone().attach(self.request(m)).await?.into_inner().url)
    }

    /// The address at which the runtime serves this port-forward.
    pub async fn port_forward(&self, m: PortForwardRequest) -> Result<String> {
        Ok(self.runtime.clone().port_forward(self.request(m)).await?.into_inner().url)
    }

    /// Use of processor, memory and disk by the containers that match.
    pub async fn list_container_stats(
        &self,
        filter: Option<ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>> {
        let m = ListContainerStatsRequest { filter };
        Ok(self.runtime.clone().list_container_stats(self.request(m)).await?.into_inner().stats)
    }

    /// The events of containers, as the runtime has them; fails with [`Error::is_unimplemented`] where it has none.
    pub async fn container_events(&self) -> Result<tonic::Streaming<ContainerEventResponse>> {
        Ok(self.runtime.clone().get_container_events(Request::new(GetEventsRequest {})).await?.into_inner())
    }

    /// The images that are here.
    pub async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(self
            .images
            .clone()
            .list_images(self.request(ListImagesRequest { filter: None }))
            .await?
            .into_inner()
            .images)
    }

    /// One image, if it is here.
    pub async fn image_status(&self, image: ImageSpec) -> Result<Option<Image>> {
        let m = ImageStatusRequest { image: Some(image), verbose: false };
        Ok(self.images.clone().image_status(self.request(m)).await?.into_inner().image)
    }

    /// Pulls an image; answers its reference. Takes as long as it takes.
    pub async fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let m = PullImageRequest { image: Some(image), auth, sandbox_config: Some(sandbox_config) };
        Ok(self.images.clone().pull_image(Request::new(m)).await?.into_inner().image_ref)
    }

    /// Removes an image.
    pub async fn remove_image(&self, image: &str) -> Result<()> {
        let image = Some(ImageSpec { image: image.into(), ..Default::default() });
        self.images.clone().remove_image(self.request(RemoveImageRequest { image })).await?;
        Ok(())
    }

    /// Where images live and how much they take.
    pub async fn image_fs_info(&self) -> Result<Vec<FilesystemUsage>> {
        Ok(self
            .images
            .clone()
            .image_fs_info(self.request(ImageFsInfoRequest {}))
            .await?
            .into_inner()
            .image_filesystems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (given, path) in [
            ("unix:///run/containerd/containerd.sock", Some("/run/containerd/containerd.sock")),
            ("/run/crio.sock", Some("/run/crio.sock")),
            ("tcp://127.0.0.1:1", None),
            ("", None),
        ] {
            assert_eq!(socket_path(given).ok(), path.map(PathBuf::from), "{given}");
        }
    }
}
