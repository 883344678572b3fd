"""paramiko: a command, a terminal, files, a forwarded port."""

import os, socket, threading
import paramiko

env = os.environ
client = paramiko.SSHClient()
key_type, blob = env["HOST_KEY"].split()[:2]
entry = paramiko.hostkeys.HostKeyEntry.from_line(f"[{env['HOST']}]:{env['PORT']} {key_type} {blob}")
client.get_host_keys().add(entry.hostnames[0], key_type, entry.key)
client.connect(
    env["HOST"], int(env["PORT"]), env["NAME"], key_filename=env["KEY"],
    allow_agent=False, look_for_keys=False, timeout=20,
)

data = os.urandom(1_000_000)
stdin, stdout, stderr = client.exec_command("cat; echo err >&2; exit 7", timeout=20)
sender = threading.Thread(target=lambda: (stdin.write(data), stdin.channel.shutdown_write()))
sender.start()
assert stdout.read() == data
sender.join()
assert stderr.read() == b"err\n"
assert stdout.channel.recv_exit_status() == 7

shell = client.invoke_shell(term="vt100", width=100, height=30)
shell.settimeout(20)
shell.send(b"stty size; echo $TERM en''d\n")
seen = b""
while b"vt100 end" not in seen:
    seen += shell.recv(4096)
assert b"30 100" in seen, seen
shell.resize_pty(width=90, height=20)
shell.send(b"stty size; exit 3\n")
assert shell.recv_exit_status() == 3

sftp = client.open_sftp()
path = os.path.join(env["FOLDER"], "paramiko")
sftp.mkdir(path)
with sftp.open(path + "/one", "wb") as file:
    file.set_pipelined(True)
    file.write(data)
sftp.posix_rename(path + "/one", path + "/two")
assert sftp.listdir(path) == ["two"]
assert sftp.stat(path + "/two").st_size == len(data)
with sftp.open(path + "/two", "rb") as file:
    file.prefetch()
    assert file.read() == data
sftp.remove(path + "/two")
sftp.rmdir(path)

listener = socket.create_server(("127.0.0.1", 0))
def answer():
    peer, _ = listener.accept()
    with peer:
        peer.sendall(peer.recv(100).upper())
threading.Thread(target=answer, daemon=True).start()
transport = client.get_transport()
forward = transport.open_channel("direct-tcpip", ("localhost", listener.getsockname()[1]), ("127.0.0.1", 1))
forward.settimeout(20)
forward.sendall(b"hello")
assert forward.recv(100) == b"HELLO"
transport.renegotiate_keys()
assert client.exec_command("echo after")[1].read() == b"after\n"
client.close()
print("done")
