"""The official Python client against a server whose kubeconfig is the first argument. Prints `ok` at the end."""

import sys
import threading

import kubernetes
from kubernetes import client, config, dynamic, watch
from kubernetes import stream
from kubernetes.client.rest import ApiException

config.load_kube_config(sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()
NS = "python"
core.create_namespace({"metadata": {"name": NS}})

# --- create, read, list in pieces
for n in range(25):
    core.create_namespaced_config_map(NS, {"metadata": {"name": f"m{n:02}", "labels": {"n": str(n % 2)}}, "data": {"k": str(n)}})
page = core.list_namespaced_config_map(NS, limit=10)
seen = [m.metadata.name for m in page.items]
while page.metadata._continue:
    page = core.list_namespaced_config_map(NS, limit=10, _continue=page.metadata._continue)
    seen += [m.metadata.name for m in page.items]
assert seen == [f"m{n:02}" for n in range(25)], seen
assert len(core.list_namespaced_config_map(NS, label_selector="n=1").items) == 12
assert core.list_namespaced_config_map(NS, field_selector="metadata.name=m03").items[0].data == {"k": "3"}

# --- watch from where the list was
events, ready = [], threading.Event()


def follow():
    w = watch.Watch()
    ready.set()
    for event in w.stream(core.list_namespaced_config_map, NS, resource_version=page.metadata.resource_version, timeout_seconds=60):
        events.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            w.stop()


follower = threading.Thread(target=follow)
follower.start()
ready.wait()
core.create_namespaced_config_map(NS, {"metadata": {"name": "w"}})
core.patch_namespaced_config_map("w", NS, {"data": {"a": "1"}})
core.delete_namespaced_config_map("w", NS)
follower.join(60)
assert events == [("ADDED", "w"), ("MODIFIED", "w"), ("DELETED", "w")], events

# --- all kinds of patches
deployment = {
    "metadata": {"name": "d"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "d"}},
        "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]},
        },
    },
}
apps.create_namespaced_deployment(NS, deployment)
strategic = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b:2"}]}}}}
d = apps.patch_namespaced_deployment("d", NS, strategic)
assert {c.name: c.image for c in d.spec.template.spec.containers} == {"a": "a:1", "b": "b:2"}
d = apps.patch_namespaced_deployment("d", NS, [{"op": "replace", "path": "/spec/replicas", "value": 3}])
assert d.spec.replicas == 3
assert apps.patch_namespaced_deployment_scale("d", NS, {"spec": {"replicas": 2}}).spec.replicas == 2
d = apps.read_namespaced_deployment("d", NS)
assert d.spec.replicas == 2 and d.metadata.generation == 4
d.metadata.resource_version = "1"
try:
    apps.replace_namespaced_deployment("d", NS, d)
    raise AssertionError("a stale update went through")
except ApiException as e:
    assert e.status == 409, e

# --- dynamic client, server-side apply
dyn = dynamic.DynamicClient(client.ApiClient())
maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"mine": "1"}}
maps.server_side_apply(body=wanted, namespace=NS, field_manager="one")
wanted["data"] = {"mine": "2"}
try:
    maps.server_side_apply(body=wanted, namespace=NS, field_manager="two")
    raise AssertionError("a conflict was passed over")
except dynamic.exceptions.ConflictError as e:
    assert 'conflict with \\"one\\": .data.mine' in e.body, e.body
applied = maps.server_side_apply(body=wanted, namespace=NS, field_manager="two", force_conflicts=True)
assert applied.data.mine == "2"
owners = {m.manager: m.operation for m in applied.metadata.managedFields}
assert owners == {"two": "Apply"} or owners == {"one": "Apply", "two": "Apply"}, owners

# --- refusals, dry runs, and going away
try:
    core.create_namespaced_service(NS, {"metadata": {"name": "S"}, "spec": {"ports": [{"port": 0}]}})
    raise AssertionError("nonsense went through")
except ApiException as e:
    assert e.status == 422 and "spec.ports[0].port" in e.body, e
core.create_namespaced_config_map(NS, {"metadata": {"name": "dry"}}, dry_run="All")
assert not core.list_namespaced_config_map(NS, field_selector="metadata.name=dry").items
core.delete_collection_namespaced_config_map(NS, label_selector="n in (0,1)")
assert not core.list_namespaced_config_map(NS, label_selector="n").items
# --- commands in a container, whose kubelet is the test's own
def run(command, **more):
    call = core.connect_get_namespaced_pod_exec
    return stream.stream(call, "shell", "default", command=command, stdout=True, stderr=True, _preload_content=False, **more)


said = run(["sh", "-c", "echo out; echo err >&2; exit 3"])
said.run_forever(timeout=60)
assert (said.read_stdout(), said.read_stderr(), said.returncode) == ("out\n", "err\n", 3), said.returncode
told = run(["head", "-n1"], stdin=True)
told.write_stdin("hello\n")
assert told.readline_stdout(timeout=60) == "hello"
told.run_forever(timeout=60)
assert told.returncode == 0
print("ok", kubernetes.__version__)
