//! A container runtime for tests: CRI over a unix socket, with no containers behind it. It can be away, hang, answer
//! late, fail, and lose events; like a real one it goes on with what it began when the caller has hung up.

use crate::blocking::Blocking;
use crate::cgroups::Cgroups;
use crate::config::{Config, KubeletConfiguration};
use crate::context::Context;
use cri::types::image_service_server::{ImageService, ImageServiceServer};
use cri::types::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use cri::types::*;
use futures::Stream;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// What is to go wrong with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It fails and does nothing.
    Fail(Code),
    /// It does its work and the answer is lost.
    Lost,
    /// It never answers.
    Hang,
    /// It takes this long before it begins.
    Late(Duration),
}

#[derive(Default)]
struct World {
    sandboxes: BTreeMap<String, (PodSandbox, PodSandboxConfig)>,
    containers: BTreeMap<String, (Container, ContainerStatus)>,
    made: u64,
    /// Calls with what they were about, in order.
    log: Vec<(&'static str, String)>,
    /// By call, how many are still to go right before the fault, and how often it happens.
    faults: HashMap<&'static str, (usize, usize, Fault)>,
    /// Each call takes a random time up to this, before its work and after it.
    jitter: Duration,
    /// Out of a hundred calls so many fail, and of events so many are lost.
    bad_calls: u32,
    lost_events: u32,
    /// What commands in containers exit with, by a word in them.
    exits: HashMap<String, i32>,
    missing_images: Vec<String>,
    /// It does not answer, not even on connections that are open.
    away: bool,
}

struct Inner {
    world: Mutex<World>,
    events: broadcast::Sender<ContainerEventResponse>,
}

/// The runtime.
pub(crate) struct Fake {
    inner: Arc<Inner>,
    /// For the kubelet's directories as well.
    pub dir: tempfile::TempDir,
    server: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Service(Arc<Inner>);

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

impl Fake {
    /// One that serves.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let inner = Arc::new(Inner { world: Mutex::default(), events: broadcast::Sender::new(1000) });
        let fake = Fake { inner, dir, server: Mutex::default() };
        fake.serve();
        fake
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("cri.sock")
    }

    /// Comes (back).
    pub(crate) fn serve(&self) {
        self.with(|w| w.away = false);
        let _ = std::fs::remove_file(self.socket());
        let listener = tokio::net::UnixListener::bind(self.socket()).unwrap_or_else(|e| panic!("{e}"));
        let incoming = futures::stream::unfold(listener, |l| async move {
            let accepted = l.accept().await.map(|(s, _)| s);
            Some((accepted, l))
        });
        let service = Service(self.inner.clone());
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(service.clone()))
            .add_service(ImageServiceServer::new(service))
            .serve_with_incoming(incoming);
        let task = tokio::spawn(async move {
            let _ = server.await;
        });
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Goes away; what runs goes on running.
    pub(crate) fn stop(&self) {
        self.with(|w| w.away = true);
        if let Some(task) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        self.inner.with(f)
    }

    /// After `good` calls of this name the next `times` go wrong.
    pub(crate) fn fault(&self, call: &'static str, good: usize, times: usize, fault: Fault) {
        self.with(|w| w.faults.insert(call, (good, times, fault)));
    }

    /// All goes wrong now and then.
    pub(crate) fn be_bad(&self, jitter: Duration, calls: u32, events: u32) {
        self.with(|w| (w.jitter, w.bad_calls, w.lost_events) = (jitter, calls, events));
    }

    /// Commands that have this word in them exit with this code.
    pub(crate) fn exits(&self, word: &str, code: i32) {
        self.with(|w| w.exits.insert(word.into(), code));
    }

    /// No registry has this image.
    pub(crate) fn no_image(&self, name: &str) {
        self.with(|w| w.missing_images.push(name.into()));
    }

    /// How many sandboxes and containers there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        self.with(|w| (w.sandboxes.len(), w.containers.len()))
    }

    /// The calls of this name so far, by what they were about.
    pub(crate) fn calls(&self, name: &str) -> Vec<String> {
        self.with(|w| w.log.iter().filter(|(n, _)| *n == name).map(|(_, what)| what.clone()).collect())
    }

    /// All calls so far.
    pub(crate) fn log(&self) -> Vec<(&'static str, String)> {
        self.with(|w| w.log.clone())
    }

    /// The containers of this name: how often each was restarted before, and whether it runs.
    pub(crate) fn containers(&self, name: &str) -> Vec<(u32, bool)> {
        self.with(|w| {
            let all = w.containers.values().filter_map(|(c, _)| Some((c.metadata.as_ref()?, c.state())));
            all.filter(|(m, _)| m.name == name)
                .map(|(m, s)| (m.attempt, s == ContainerState::ContainerRunning))
                .collect()
        })
    }

    /// A kubelet's context that has this runtime and no API server.
    pub(crate) fn context(&self) -> Arc<Context> {
        let at = |p: &str| self.dir.path().join(p).to_string_lossy().into_owned();
        let flags = <crate::Flags as clap::Parser>::parse_from([
            "kubelet".to_owned(),
            format!("--root-dir={}", at("kubelet")),
            format!("--container-runtime-endpoint={}", self.socket().display()),
            "--cgroups-per-qos=false".to_owned(),
        ]);
        let file = KubeletConfiguration { pod_logs_dir: at("logs"), ..Default::default() };
        let mut config = Config::resolve(&flags, file, Path::new("")).unwrap_or_else(|e| panic!("{e}"));
        config.log_links = at("links").into();
        config.resolv_conf = at("resolv.conf");
        config.runtime_timeout = Duration::from_secs(10);
        sys::dir::make_all(&config.pods_dir(), 0o750).unwrap_or_else(|e| panic!("{e}"));
        let runtime = cri::Runtime::new(&config.runtime_endpoint, "", config.runtime_timeout);
        let allocatable = [("cpu", "4"), ("memory", "4Gi"), ("pods", "500"), ("ephemeral-storage", "9Gi")];
        let quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity;
        let mirrors = Arc::new(crate::sources::mirror::Mirrors::default());
        Arc::new(Context {
            events: crate::events::Events::new("n", None),
            exits: Default::default(),
            images: crate::images::Images::new(4),
            objects: crate::objects::Objects::new(None),
            status: crate::status::manager::StatusManager::new(None, mirrors.clone()),
            mirrors,
            memory_capacity: 4 << 30,
            allocatable: RwLock::new(allocatable.map(|(k, v)| (k.to_owned(), quantity(v.into()))).into()),
            labels: RwLock::default(),
            addresses: RwLock::new(vec!["10.0.0.1".into()]),
            runtime_name: RwLock::new("fake".into()),
            records: crate::resize::records::Records::new(config.pods_dir()),
            bounds_swap: false,
            apparmor: false,
            selinux: false,
            blocking: Blocking::default(),
            abilities: RwLock::default(),
            health: Default::default(),
            runtime: runtime.unwrap_or_else(|e| panic!("{e}")),
            cgroups: Cgroups::none(),
            config,
        })
    }
}

impl Inner {
    fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does the work of a call with what is to go wrong with it.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        about: &str,
        work: impl FnOnce(&mut World) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        let (fault, jitter, unlucky) = self.with(|w| {
            w.log.push((name, about.to_owned()));
            let unlucky = w.bad_calls > 0 && rand::random_range(0..100) < w.bad_calls;
            let fault = match w.faults.get_mut(name) {
                Some((0, times, fault)) if *times > 0 => {
                    *times -= 1;
                    Some(*fault)
                }
                Some((good, ..)) => {
                    *good = good.saturating_sub(1);
                    None
                }
                None => None,
            };
            (fault, w.jitter, unlucky)
        });
        if self.with(|w| w.away) {
            return Err(Status::unavailable("away"));
        }
        let nap = || jitter.mul_f64(rand::random_range(0.0..1.0));
        let (before, after) = (nap(), nap());
        match fault {
            Some(Fault::Fail(code)) => return Err(Status::new(code, "on purpose")),
            Some(Fault::Hang) => std::future::pending().await,
            _ if unlucky && rand::random() => return Err(Status::unavailable("by chance")),
            _ => {}
        }
        // it goes on when the caller is gone
        let own = self.clone();
        let done = tokio::spawn(async move {
            if let Some(Fault::Late(by)) = fault {
                tokio::time::sleep(by).await;
            }
            tokio::time::sleep(before).await;
            let made = own.with(work);
            tokio::time::sleep(after).await;
            made
        });
        let made = done.await.map_err(|e| Status::internal(e.to_string()))?;
        if unlucky || matches!(fault, Some(Fault::Lost)) {
            return Err(Status::unavailable("the answer is lost"));
        }
        made.map(Response::new)
    }

    fn event(&self, id: &str, what: ContainerEventType) {
        if self.with(|w| w.lost_events > 0 && rand::random_range(0..100) < w.lost_events) {
            return;
        }
        let e = ContainerEventResponse {
            container_id: id.into(),
            container_event_type: what.into(),
            ..Default::default()
        };
        let _ = self.events.send(e);
    }
}

fn not_found(id: &str) -> Status {
    Status::not_found(format!("{id} not found"))
}

fn fits(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn end(c: &mut (Container, ContainerStatus), code: i32) {
    if c.0.state() == ContainerState::ContainerExited {
        return;
    }
    c.0.state = ContainerState::ContainerExited.into();
    c.1.state = ContainerState::ContainerExited.into();
    (c.1.exit_code, c.1.finished_at) = (code, now());
    c.1.reason = if code == 0 { "Completed" } else { "Error" }.into();
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        let answer = VersionResponse { runtime_name: "fake".into(), ..Default::default() };
        self.0.call("Version", "", |_| Ok(answer)).await
    }

    async fn run_pod_sandbox(&self, r: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let config = r.into_inner().config.unwrap_or_default();
        let m = config.metadata.clone().unwrap_or_default();
        let name = m.name.clone();
        let made = self.0.call("RunPodSandbox", &name, move |w| {
            w.made += 1;
            let id = format!("s{}", w.made);
            let sandbox = PodSandbox {
                id: id.clone(),
                metadata: Some(m),
                state: PodSandboxState::SandboxReady.into(),
                created_at: now(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                ..Default::default()
            };
            w.sandboxes.insert(id.clone(), (sandbox, config));
            Ok(RunPodSandboxResponse { pod_sandbox_id: id })
        });
        let made = made.await?;
        self.0.event(&made.get_ref().pod_sandbox_id, ContainerEventType::ContainerStartedEvent);
        Ok(made)
    }

    async fn stop_pod_sandbox(&self, r: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let id = r.into_inner().pod_sandbox_id;
        let own = id.clone();
        let done = self.0.call("StopPodSandbox", &id, move |w| {
            if let Some((s, _)) = w.sandboxes.get_mut(&own) {
                s.state = PodSandboxState::SandboxNotready.into();
            }
            w.containers.values_mut().filter(|(c, _)| c.pod_sandbox_id == own).for_each(|c| end(c, 137));
            Ok(StopPodSandboxResponse {})
        });
        let done = done.await?;
        self.0.event(&id, ContainerEventType::ContainerStoppedEvent);
        Ok(done)
    }

    async fn remove_pod_sandbox(
        &self,
        r: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let id = r.into_inner().pod_sandbox_id;
        let own = id.clone();
        let work = move |w: &mut World| {
            w.sandboxes.remove(&own);
            w.containers.retain(|_, (c, _)| c.pod_sandbox_id != own);
            Ok(RemovePodSandboxResponse {})
        };
        self.0.call("RemovePodSandbox", &id, work).await
    }

    async fn pod_sandbox_status(
        &self,
        r: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let id = r.into_inner().pod_sandbox_id;
        let own = id.clone();
        let work = move |w: &mut World| {
            let (s, _) = w.sandboxes.get(&own).ok_or_else(|| not_found(&own))?;
            let status = PodSandboxStatus {
                id: own.clone(),
                metadata: s.metadata.clone(),
                state: s.state,
                created_at: s.created_at,
                network: Some(PodSandboxNetworkStatus { ip: "10.1.0.1".into(), ..Default::default() }),
                labels: s.labels.clone(),
                annotations: s.annotations.clone(),
                ..Default::default()
            };
            Ok(PodSandboxStatusResponse { status: Some(status), ..Default::default() })
        };
        self.0.call("PodSandboxStatus", &id, work).await
    }

    async fn list_pod_sandbox(&self, r: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let selector = r.into_inner().filter.unwrap_or_default().label_selector;
        let work = move |w: &mut World| {
            let all = w.sandboxes.values().map(|(s, _)| s).filter(|s| fits(&selector, &s.labels));
            Ok(ListPodSandboxResponse { items: all.cloned().collect() })
        };
        self.0.call("ListPodSandbox", "", work).await
    }

    async fn create_container(&self, r: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let r = r.into_inner();
        let config = r.config.unwrap_or_default();
        let m = config.metadata.clone().unwrap_or_default();
        let work = move |w: &mut World| {
            if !w.sandboxes.contains_key(&r.pod_sandbox_id) {
                return Err(not_found(&r.pod_sandbox_id));
            }
            w.made += 1;
            let id = format!("c{}", w.made);
            let c = Container {
                id: id.clone(),
                pod_sandbox_id: r.pod_sandbox_id,
                metadata: config.metadata.clone(),
                image: config.image.clone(),
                state: ContainerState::ContainerCreated.into(),
                created_at: now(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                ..Default::default()
            };
            let status = ContainerStatus {
                id: id.clone(),
                metadata: config.metadata,
                state: c.state,
                created_at: c.created_at,
                image: config.image,
                labels: config.labels,
                annotations: config.annotations,
                mounts: config.mounts,
                ..Default::default()
            };
            w.containers.insert(id.clone(), (c, status));
            Ok(CreateContainerResponse { container_id: id })
        };
        self.0.call("CreateContainer", &m.name, work).await
    }

    async fn start_container(&self, r: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = r.into_inner().container_id;
        let own = id.clone();
        let work = move |w: &mut World| {
            let c = w.containers.get_mut(&own).ok_or_else(|| not_found(&own))?;
            c.0.state = ContainerState::ContainerRunning.into();
            (c.1.state, c.1.started_at) = (c.0.state, now());
            Ok(StartContainerResponse {})
        };
        let done = self.0.call("StartContainer", &id, work).await?;
        self.0.event(&id, ContainerEventType::ContainerStartedEvent);
        Ok(done)
    }

    async fn stop_container(&self, r: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let r = r.into_inner();
        let id = r.container_id;
        let name = self.0.with(|w| {
            let m = w.containers.get(&id).and_then(|(c, _)| c.metadata.as_ref());
            m.map_or_else(|| id.clone(), |m| format!("{} {}", m.name, r.timeout))
        });
        let own = id.clone();
        let work = move |w: &mut World| {
            end(w.containers.get_mut(&own).ok_or_else(|| not_found(&own))?, 143);
            Ok(StopContainerResponse {})
        };
        let done = self.0.call("StopContainer", &name, work).await?;
        self.0.event(&id, ContainerEventType::ContainerStoppedEvent);
        Ok(done)
    }

    async fn remove_container(&self, r: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let id = r.into_inner().container_id;
        let own = id.clone();
        let work = move |w: &mut World| {
            w.containers.remove(&own);
            Ok(RemoveContainerResponse {})
        };
        self.0.call("RemoveContainer", &id, work).await
    }

    async fn list_containers(&self, r: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let selector = r.into_inner().filter.unwrap_or_default().label_selector;
        let work = move |w: &mut World| {
            let all = w.containers.values().map(|(c, _)| c).filter(|c| fits(&selector, &c.labels));
            Ok(ListContainersResponse { containers: all.cloned().collect() })
        };
        self.0.call("ListContainers", "", work).await
    }

    async fn container_status(&self, r: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let id = r.into_inner().container_id;
        let own = id.clone();
        let work = move |w: &mut World| {
            let (_, s) = w.containers.get(&own).ok_or_else(|| not_found(&own))?;
            Ok(ContainerStatusResponse { status: Some(s.clone()), ..Default::default() })
        };
        self.0.call("ContainerStatus", &id, work).await
    }

    async fn update_container_resources(
        &self,
        r: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let id = r.into_inner().container_id;
        self.0.call("UpdateContainerResources", &id, |_| Ok(UpdateContainerResourcesResponse {})).await
    }

    async fn reopen_container_log(
        &self,
        r: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let id = r.into_inner().container_id;
        self.0.call("ReopenContainerLog", &id, |_| Ok(ReopenContainerLogResponse {})).await
    }

    async fn exec_sync(&self, r: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let command = r.into_inner().cmd.join(" ");
        let own = command.clone();
        let work = move |w: &mut World| {
            let code = w.exits.iter().find(|(word, _)| own.contains(word.as_str())).map_or(0, |(_, c)| *c);
            Ok(ExecSyncResponse { exit_code: code, ..Default::default() })
        };
        self.0.call("ExecSync", &command, work).await
    }

    async fn exec(&self, _: Request<ExecRequest>) -> Answer<ExecResponse> {
        Err(Status::unimplemented("exec"))
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Answer<AttachResponse> {
        Err(Status::unimplemented("attach"))
    }

    async fn port_forward(&self, _: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        Err(Status::unimplemented("port forward"))
    }

    async fn container_stats(&self, _: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        Err(Status::unimplemented("stats"))
    }

    async fn list_container_stats(
        &self,
        _: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn pod_sandbox_stats(&self, _: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        Err(Status::unimplemented("stats"))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        Err(Status::unimplemented("stats"))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let of = |t: &str| RuntimeCondition { r#type: t.into(), status: true, ..Default::default() };
        let status = RuntimeStatus { conditions: vec![of("RuntimeReady"), of("NetworkReady")] };
        let answer = StatusResponse { status: Some(status), ..Default::default() };
        self.0.call("Status", "", |_| Ok(answer)).await
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoint"))
    }

    type GetContainerEventsStream =
        Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let listen = self.0.events.subscribe();
        self.0.call("GetContainerEvents", "", |_| Ok(())).await?;
        let stream = futures::stream::unfold(listen, |mut l| async move {
            loop {
                match l.recv().await {
                    Ok(e) => return Some((Ok(e), l)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Err(Status::unimplemented("metrics"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        Err(Status::unimplemented("metrics"))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        Err(Status::unimplemented("its driver"))
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        self.0.call("ListImages", "", |_| Ok(Default::default())).await
    }

    async fn image_status(&self, r: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = r.into_inner().image.unwrap_or_default().image;
        let own = name.clone();
        let work = move |w: &mut World| {
            let there = !w.missing_images.iter().any(|m| own.contains(m.as_str()));
            let image = there.then(|| Image { id: own.clone(), ..Default::default() });
            Ok(ImageStatusResponse { image, ..Default::default() })
        };
        self.0.call("ImageStatus", &name, work).await
    }

    async fn pull_image(&self, r: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let name = r.into_inner().image.unwrap_or_default().image;
        let own = name.clone();
        let work = move |w: &mut World| {
            if w.missing_images.iter().any(|m| own.contains(m.as_str())) {
                return Err(not_found(&own));
            }
            Ok(PullImageResponse { image_ref: own })
        };
        self.0.call("PullImage", &name, work).await
    }

    async fn remove_image(&self, _: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        Ok(Response::new(Default::default()))
    }
}
