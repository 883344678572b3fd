"""libssh2, by ssh2-python: a command, scp, sftp."""

import os, socket
from ssh2.session import Session
from ssh2.sftp import LIBSSH2_FXF_CREAT, LIBSSH2_FXF_READ, LIBSSH2_FXF_WRITE, LIBSSH2_SFTP_S_IRUSR, LIBSSH2_SFTP_S_IWUSR

env = os.environ
link = socket.create_connection((env["HOST"], int(env["PORT"])), 20)
session = Session()
session.set_timeout(20_000)
session.handshake(link)
session.userauth_publickey_fromfile(env["NAME"], env["KEY"])

data = os.urandom(1_000_000)


def read(channel):
    got = b""
    while True:
        size, part = channel.read(65536)
        if size <= 0:
            return got
        got += part


channel = session.open_session()
channel.execute("head -c 1000000 | cat; exit 7")
sent = 0
got = b""
while sent < len(data):
    _, written = channel.write(data[sent:sent + 30_000])
    sent += written
channel.send_eof()
assert read(channel) == data
channel.wait_eof()
channel.close()
channel.wait_closed()
assert channel.get_exit_status() == 7

path = os.path.join(env["FOLDER"], "libssh2")
channel = session.scp_send64(path, 0o640, len(data), 0, 0)
sent = 0
while sent < len(data):
    _, written = channel.write(data[sent:])
    sent += written
channel.send_eof()
channel.wait_eof()
channel.close()
channel.wait_closed()
assert open(path, "rb").read() == data

sftp = session.sftp_init()
mode = LIBSSH2_SFTP_S_IRUSR | LIBSSH2_SFTP_S_IWUSR
with sftp.open(path, LIBSSH2_FXF_READ, 0) as file:
    assert b"".join(part for _, part in file) == data
with sftp.open(path + "-2", LIBSSH2_FXF_CREAT | LIBSSH2_FXF_WRITE, mode) as file:
    file.write(data)
sftp.rename(path + "-2", path + "-3")
assert sftp.stat(path + "-3").filesize == len(data)
sftp.unlink(path + "-3")
session.disconnect()
print("done")
