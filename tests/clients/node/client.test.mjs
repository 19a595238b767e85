// The official JavaScript client against a server whose kubeconfig is the first argument. Prints `ok` at the end.

import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const core = config.makeApiClient(k8s.CoreV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const namespace = 'node';
await core.createNamespace({ body: { metadata: { name: namespace } } });

// --- an informer sees what is there and what comes
const seen = [];
const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'mine' });
const map = (name, data) => ({ metadata: { name, labels: { mine: '' } }, data });
await core.createNamespacedConfigMap({ namespace, body: map('first', { a: '1' }) });
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'mine');
const heard = (count) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`heard only ${JSON.stringify(seen)}`)), 60000);
    const look = () => seen.length >= count && (clearTimeout(timer), resolve());
    informer.on('change', () => setImmediate(look));
    informer.on('add', () => setImmediate(look));
    informer.on('delete', () => setImmediate(look));
    look();
  });
for (const verb of ['add', 'update', 'delete']) {
  informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
}
informer.on('error', (e) => { throw e; });
await informer.start();
await heard(1);
await core.createNamespacedConfigMap({ namespace, body: map('second', { a: '1' }) });
const second = await core.readNamespacedConfigMap({ namespace, name: 'second' });
second.data.a = '2';
await core.replaceNamespacedConfigMap({ namespace, name: 'second', body: second });
await core.deleteNamespacedConfigMap({ namespace, name: 'second' });
await heard(4);
assert.deepEqual(seen, ['add first', 'add second', 'update second', 'delete second']);

// --- objects of any kind, patches, server-side apply
const patched = await objects.patch(
  { apiVersion: 'v1', kind: 'ConfigMap', metadata: { namespace, name: 'first' }, data: { b: '2' } },
  undefined, undefined, undefined, undefined, k8s.PatchStrategy.MergePatch,
);
assert.deepEqual(patched.data, { a: '1', b: '2' });
const wanted = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { namespace, name: 'applied' }, data: { mine: '1' } };
const apply = (manager, force) =>
  objects.patch(wanted, undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
await apply('one', false);
wanted.data.mine = '2';
await assert.rejects(apply('two', false), (e) => e.code === 409 && JSON.stringify(e.body).includes('conflict with'));
assert.equal((await apply('two', true)).data.mine, '2');

// --- a deployment, its scale, and a refusal
const apps = config.makeApiClient(k8s.AppsV1Api);
const template = { metadata: { labels: { app: 'd' } }, spec: { containers: [{ name: 'c', image: 'i' }] } };
const spec = { replicas: 1, selector: { matchLabels: { app: 'd' } }, template };
await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'd' }, spec } });
const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'd' });
scale.spec.replicas = 4;
await apps.replaceNamespacedDeploymentScale({ namespace, name: 'd', body: scale });
assert.equal((await apps.readNamespacedDeployment({ namespace, name: 'd' })).spec.replicas, 4);
await assert.rejects(
  apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'bad' }, spec: { ...spec, replicas: -1 } } }),
  (e) => e.code === 422 && JSON.stringify(e.body).includes('spec.replicas'),
);

// --- commands in a container, whose kubelet is the test's own
const exec = new k8s.Exec(config);
const run = (command, input) =>
  new Promise((resolve, reject) => {
    const texts = ['', ''];
    const [out, err] = texts.map((_, n) => new PassThrough().on('data', (data) => { texts[n] += data; }));
    const done = (status) => setImmediate(() => resolve([...texts, status]));
    exec.exec('default', 'shell', 'c', command, out, err, input, false, done).catch(reject);
  });
const [out, err, status] = await run(['sh', '-c', 'echo out; echo err >&2; exit 3'], null);
assert.deepEqual([out, err, status.status], ['out\n', 'err\n', 'Failure']);
assert.equal(status.details.causes[0].message, '3');
const told = await run(['cat'], Readable.from(['hello\n']));
assert.deepEqual([told[0], told[2].status], ['hello\n', 'Success']);
await assert.rejects(exec.exec('default', 'nobody', 'c', ['true'], new PassThrough(), null, null, false));
console.log('ok');
process.exit(0);
