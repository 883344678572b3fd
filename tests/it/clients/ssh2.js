// Node's ssh2: a command, a terminal, files, a forwarded port.
const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const path = require('path');
const { Client } = require('ssh2');

const env = process.env;
const data = crypto.randomBytes(1000000);
const collect = (stream) => new Promise((done, failed) => {
  const parts = [];
  stream.on('data', (part) => parts.push(part)).on('error', failed);
  stream.on('end', () => done(Buffer.concat(parts)));
});
const call = (object, name, ...args) => new Promise((done, failed) =>
  object[name](...args, (error, value) => (error ? failed(error) : done(value))));

const main = async () => {
  const client = new Client();
  const wanted = env.HOST_KEY.split(' ')[1];
  await new Promise((done, failed) => client.on('ready', done).on('error', failed).connect({
    host: env.HOST, port: +env.PORT, username: env.NAME, privateKey: fs.readFileSync(env.KEY),
    hostVerifier: (key) => key.toString('base64') === wanted,
  }));
  const command = await call(client, 'exec', 'cat; echo err >&2; exit 7');
  const exited = new Promise((done) => command.on('exit', done));
  const [out, err] = [collect(command), collect(command.stderr)];
  command.end(data);
  assert(data.equals(await out));
  assert.equal((await err).toString(), 'err\n');
  assert.equal(await exited, 7);

  const many = await Promise.all([...Array(20).keys()].map(async (number) =>
    (await collect(await call(client, 'exec', `echo ${number}`))).toString()));
  assert.deepEqual(many, [...Array(20).keys()].map((number) => `${number}\n`));

  const shell = await call(client, 'shell', { term: 'vt100', cols: 100, rows: 30 });
  const shown = collect(shell);
  shell.end('stty size; exit\n');
  assert((await shown).toString().includes('30 100'));

  const sftp = await call(client, 'sftp');
  const there = path.join(env.FOLDER, 'node');
  const [here, back] = ['here', 'back'].map((name) => path.join(env.HOME, `node-${name}`));
  fs.writeFileSync(here, data);
  await call(sftp, 'fastPut', here, there);
  await call(sftp, 'fastGet', there, back);
  assert(data.equals(fs.readFileSync(back)));
  await call(sftp, 'unlink', there);

  const target = net.createServer((peer) => peer.on('data', (text) =>
    peer.end(text.toString().toUpperCase())));
  await new Promise((done) => target.listen(0, '127.0.0.1', done));
  const forward = await call(client, 'forwardOut', '127.0.0.1', 1, 'localhost', target.address().port);
  forward.write('hello');
  assert.equal((await collect(forward)).toString(), 'HELLO');
  target.close();
  client.end();
  console.log('done');
};
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
